-- Makes a breaker's row say what the last transition of its chain says, and lets everything since then be counted
-- again. For rows that contradict the log: the log is the record, the row is a copy of it. Whoever calls it counts the
-- breakers anew in the end (recount_breakers): nobody knows what was counted of a row that was wrong.
CREATE OR REPLACE FUNCTION restore_breaker_state(the_user_id bigint) RETURNS void
LANGUAGE plpgsql
AS $function$
DECLARE
    last_transition breaker_transitions;
BEGIN
    INSERT INTO breaker_states (user_id) VALUES (the_user_id) ON CONFLICT (user_id) DO NOTHING;
    PERFORM FROM breaker_states WHERE user_id = the_user_id FOR UPDATE;

    SELECT * INTO last_transition
    FROM breaker_transitions
    WHERE user_id = the_user_id AND position IS NOT NULL
    ORDER BY version DESC
    LIMIT 1;

    UPDATE breaker_states SET
        state = CASE last_transition.details ->> 'to' WHEN 'open' THEN 1 WHEN 'half_open' THEN 2 ELSE 0 END,
        version = coalesce(last_transition.version, 0),
        last_writer_id = last_transition.writer_id,
        last_writer_seq = last_transition.writer_seq,
        generation = coalesce(last_transition.generation, 0),
        era = coalesce(last_transition.era, 0),
        since = last_transition.occurred_at,
        opened_at = (last_transition.details ->> 'opened_at')::timestamptz,
        retry_at = (last_transition.details ->> 'retry_at')::timestamptz,
        failure_count = coalesce((last_transition.details ->> 'failure_count')::integer, 0),
        last_failure = nullif(last_transition.details -> 'last_failure', 'null'),
        success_count = CASE WHEN last_transition.details ->> 'to' = 'half_open' THEN (
            SELECT count(*) FROM breaker_outcomes
            WHERE user_id = the_user_id AND kind = 1 AND verdict = 0
                AND generation = last_transition.generation AND era = last_transition.era
        ) + coalesce((last_transition.details ->> 'success_count')::integer, 0) ELSE 0 END,
        -- The count may have begun before the transition that is last, if that one is a change of policy.
        tail_from = CASE WHEN last_transition.details ->> 'to' IN ('open', 'half_open') THEN NULL ELSE '-infinity'::timestamptz END,
        tail_until = clock_timestamp() + interval '1 minute',
        tail_writer = 0,
        policy = coalesce(last_transition.details -> 'policy', policy),
        policy_is_own = coalesce((last_transition.details ->> 'policy_is_own')::boolean, policy_is_own),
        forced = coalesce((last_transition.details ->> 'forced')::boolean, false),
        suspended = coalesce(last_transition.details ? 'suspension', false),
        (trips, trip_error) = (
            SELECT count(*), (array_agg(details #>> '{causes,-1,error_type}' ORDER BY version DESC))[1]
            FROM breaker_transitions
            WHERE user_id = the_user_id AND position IS NOT NULL AND is_trip(kind, details)
        )
    WHERE user_id = the_user_id;
END
$function$
