-- Takes the texts out of a user's events and puts a pseudonym in the place of the user, and seals the batches again in
-- which they stand: each gets a new salt, and its digests before and after are kept.
--
-- It acts in the owner's place, and believes nothing: what is left of an event is worked out here; a batch is sealed again
-- only if it has one of these events, and if the digest before is the one that it was sealed with, which nobody can tell
-- whose batch was altered. A digest after that is not that of the contents is found by `verify`.
--
-- Outcomes that are not named are left alone: they came later. The event that tells of the erasure is appended as the
-- only one of its batch, by the arguments from `the_writer_id` on; see append_batch.
--
-- Where the breaker has changed since its events were read, nothing happens, and they are to be read again: BS002.
CREATE OR REPLACE FUNCTION erase_person(
    the_user_id bigint,
    pseudonym bigint,
    event_writer_ids bigint[],
    event_seqs bigint[],
    batch_writer_ids bigint[],
    batch_nos bigint[],
    salts bytea[],
    digests_before bytea[],
    digests_after bytea[],
    the_writer_id bigint,
    the_seq bigint,
    the_format smallint,
    the_source smallint,
    the_digest bytea,
    the_time timestamptz,
    batch jsonb,
    the_seal bytea
) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
AS $function$
DECLARE
    erased bigint;
BEGIN
    -- First of all: nothing is counted meanwhile; see erase_rollups.
    PERFORM FROM rollup_progress FOR UPDATE;

    -- Else whoever may erase could make one user out of two.
    IF (pseudonym < -4611686018427387904) IS NOT TRUE
        OR EXISTS (SELECT FROM breaker_states WHERE user_id = pseudonym)
        OR EXISTS (SELECT FROM breaker_events WHERE user_id = pseudonym)
    THEN
        RAISE EXCEPTION 'this is no free pseudonym' USING ERRCODE = 'invalid_parameter_value';
    END IF;

    -- Else they could append what they like.
    IF (
        batch -> 'changes' @> jsonb_build_array(jsonb_build_object('kind', 19, 'user_id', pseudonym, 'seq', the_seq))
        AND jsonb_array_length(batch -> 'changes') = 1
        AND NOT EXISTS (SELECT FROM jsonb_each(batch) WHERE key <> 'changes' AND value <> '[]')
    ) IS NOT TRUE THEN
        RAISE EXCEPTION 'this is no erasure' USING ERRCODE = 'invalid_parameter_value';
    END IF;

    PERFORM FROM breaker_states WHERE user_id = the_user_id FOR UPDATE;
    IF (SELECT count(*) FROM breaker_transitions WHERE user_id = the_user_id) <> (
        SELECT count(*)
        FROM breaker_transitions
        JOIN unnest(event_writer_ids, event_seqs) AS named (writer, seq) ON writer_id = writer AND writer_seq = seq
        WHERE user_id = the_user_id
    ) THEN
        RAISE EXCEPTION 'the breaker has changed' USING ERRCODE = 'BS002';
    END IF;

    PERFORM set_config('breaker_store.erasing', pg_current_xact_id()::text, true);

    UPDATE breaker_states SET user_id = pseudonym, last_failure = NULL, trip_error = NULL WHERE user_id = the_user_id;

    -- What was said of many is not about this one.
    UPDATE staged_resets SET reason = NULL, filter = filter || '{"error": null}' WHERE id IN (
        SELECT staged_reset_id FROM staged_reset_breakers GROUP BY staged_reset_id HAVING bool_and(user_id = the_user_id)
    );
    UPDATE staged_reset_breakers SET user_id = pseudonym, error = NULL WHERE user_id = the_user_id;

    UPDATE recorders SET last_error = NULL WHERE strpos(last_error, the_user_id::text) > 0;
    UPDATE webhooks SET last_error = NULL WHERE strpos(last_error, the_user_id::text) > 0;

    UPDATE breaker_events SET
        user_id = pseudonym,
        operation = NULL,
        error_type = NULL,
        error_message = NULL,
        trace_id = NULL,
        private_digest = CASE
            WHEN salt IS NULL THEN private_digest
            ELSE private_transition_digest(salt, user_id, breaker_events.details)
        END,
        salt = NULL,
        details = erased_details(breaker_events.details)
    FROM unnest(event_writer_ids, event_seqs) AS named (writer, seq)
    WHERE user_id = the_user_id AND writer_id = named.writer AND writer_seq = named.seq;
    GET DIAGNOSTICS erased = ROW_COUNT;
    IF erased <> cardinality(event_writer_ids) THEN
        -- Some were dropped with their day.
        RAISE EXCEPTION 'the breaker has changed' USING ERRCODE = 'BS002';
    END IF;

    PERFORM erase_rollups(the_user_id, pseudonym);

    IF EXISTS (
        WITH point (writer, seq, is_event, number) AS (
            SELECT writer_id, first_seq, false, batch_no FROM writer_batches WHERE writer_id = ANY (batch_writer_ids)
            UNION ALL
            SELECT writer, seq, true, NULL FROM unnest(event_writer_ids, event_seqs) AS event (writer, seq)
        ), placed AS (
            SELECT writer, is_event, max(number) OVER (PARTITION BY writer ORDER BY seq, is_event) AS number FROM point
        ), touched AS (
            SELECT DISTINCT writer, number FROM placed WHERE is_event
        )
        SELECT
        FROM unnest(batch_writer_ids, batch_nos, digests_before) AS named (writer, number, digest)
        LEFT JOIN touched USING (writer, number)
        LEFT JOIN writer_batches AS stored ON writer_id = named.writer AND batch_no = named.number
        WHERE touched.number IS NULL OR stored.seal IS NULL OR has_contents(stored, named.digest) IS NOT TRUE
    ) THEN
        RAISE EXCEPTION 'a batch is not as it was sealed, or has nothing of this user'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    UPDATE writer_batches SET seal = named.salt || substr(seal, 17)
    FROM unnest(batch_writer_ids, batch_nos, salts) AS named (writer, number, salt)
    WHERE writer_id = named.writer AND batch_no = named.number;

    INSERT INTO resealed_batches (
        writer_id, batch_no, erasure_writer_id, erasure_writer_seq, digest_before, digest_after
    )
    SELECT named.writer, named.number, the_writer_id, the_seq, named.before, named.after
    FROM unnest(batch_writer_ids, batch_nos, digests_before, digests_after) AS named (writer, number, before, after);

    PERFORM set_config('breaker_store.erasing', '', true);

    PERFORM append_batch(
        the_writer_id, 1, the_seq, the_seq, 1, the_format, the_source, the_digest, NULL, the_time, the_time, batch,
        the_seal
    );
    IF NOT EXISTS (
        SELECT FROM breaker_transitions
        WHERE writer_id = the_writer_id AND writer_seq = the_seq AND position IS NOT NULL
    ) THEN
        RAISE EXCEPTION 'the breaker has changed' USING ERRCODE = 'BS002';
    END IF;
    RETURN erased;
END
$function$
