-- Gives the users whose breaker's count needs outcomes of before a time, which therefore can't go yet:
-- closed, with a failure that no success has ended; half-open, with a probe that counts; or closed since a success ended
-- a run that was carried over, without which that run would be there again.
--
-- Each looks its user up by the index: joined otherwise, all outcomes would be read.
CREATE FUNCTION breakers_owing(before timestamptz) RETURNS SETOF bigint
LANGUAGE sql
STABLE
AS $function$
    WITH suspect AS MATERIALIZED (
        SELECT user_id, generation, era, tail_from AS since, 0 AS carried
        FROM breaker_states
        WHERE state = 0::smallint AND tail_from < before
        UNION ALL
        SELECT user_id, generation, era, since - interval '1 hour', 0
        FROM breaker_states
        WHERE state = 2::smallint AND since < before
        UNION ALL
        SELECT user_id, breaker.generation, breaker.era, start.occurred_at - interval '1 hour', 1
        FROM breaker_transitions AS start
        JOIN breaker_states AS breaker USING (user_id)
        WHERE start.kind = 20::smallint AND start.position IS NOT NULL AND start.occurred_at < before
            AND (start.details ->> 'failure_count'::text)::integer > 0
            AND breaker.state = 0::smallint
            AND breaker.generation = start.generation AND breaker.era = start.era
    )
    SELECT DISTINCT suspect.user_id
    FROM suspect
    JOIN breaker_states AS breaker ON breaker.user_id = suspect.user_id
    LEFT JOIN LATERAL (
        SELECT occurred_at, writer_id, writer_seq
        FROM breaker_outcomes
        WHERE user_id = suspect.user_id AND occurred_at >= suspect.since
            AND kind = 1::smallint AND verdict = 0::smallint
            AND generation = suspect.generation AND era = suspect.era
        ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC
        LIMIT 1
    ) AS success ON true
    LEFT JOIN LATERAL (
        SELECT occurred_at, writer_id, writer_seq
        FROM breaker_outcomes
        WHERE user_id = suspect.user_id AND occurred_at >= suspect.since AND occurred_at < before
            AND kind = 2::smallint AND verdict = 0::smallint
            AND generation = suspect.generation AND era = suspect.era
        ORDER BY occurred_at DESC, writer_id DESC, writer_seq DESC
        LIMIT 1
    ) AS failure ON breaker.state = 0::smallint AND suspect.carried = 0
    LEFT JOIN LATERAL (
        SELECT occurred_at
        FROM breaker_outcomes
        WHERE user_id = suspect.user_id AND occurred_at >= suspect.since AND occurred_at < before
            AND kind = 1::smallint AND verdict = 0::smallint
            AND generation = suspect.generation AND era = suspect.era
        LIMIT 1
    ) AS probe ON breaker.state = 2::smallint
    WHERE probe.occurred_at IS NOT NULL
        OR (suspect.carried = 1 AND success.occurred_at < before)
        OR (
            failure.occurred_at IS NOT NULL AND (
                success.occurred_at IS NULL
                OR (success.occurred_at, success.writer_id, success.writer_seq)
                    < (failure.occurred_at, failure.writer_id, failure.writer_seq)
            )
        )
$function$
