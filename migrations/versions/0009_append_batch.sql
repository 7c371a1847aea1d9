-- Appends a small batch as one statement, which costs one round trip and its own commit: under about 50 events that
-- is cheaper than BEGIN, COPY and COMMIT. `batch` has the keys of finish_batch, and `outcomes`.
CREATE FUNCTION append_batch(
    the_writer_id bigint,
    the_batch_no bigint,
    the_first_seq bigint,
    the_last_seq bigint,
    the_event_count integer,
    the_format smallint,
    the_source smallint,
    the_digest bytea,
    the_previous_digest bytea,
    the_earliest timestamptz,
    the_latest timestamptz,
    batch jsonb,
    the_seal bytea DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM open_batch(
        the_writer_id, the_batch_no, the_first_seq, the_last_seq, the_event_count, the_format, the_source,
        the_digest, the_previous_digest, the_earliest, the_latest,
        the_seal
    );

    INSERT INTO breaker_events (
        occurred_at, user_id, writer_id, writer_seq, duration_us, generation, era, kind, verdict, probe, count, attempt,
        trace_id, operation, error_type, error_message
    )
    SELECT
        occurred_at, user_id, the_writer_id, seq, duration_us, generation, era, kind, verdict, probe, count, attempt,
        trace_id, operation, error_type, error_message
    FROM jsonb_to_recordset(batch -> 'outcomes') AS outcome (
        occurred_at timestamptz, user_id bigint, seq bigint, duration_us bigint, generation integer, era integer,
        kind smallint, verdict smallint, probe integer, count integer, attempt smallint, trace_id uuid,
        operation text, error_type text, error_message text
    );

    PERFORM finish_batch(the_writer_id, batch);
END
$function$
