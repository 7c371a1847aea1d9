-- Tells whether a digest is that of a batch's contents, by what the batch was sealed with, or by the last erasure from it.
-- The same stands in the codec, as batch_digest.
CREATE FUNCTION has_contents(batch writer_batches, contents bytea) RETURNS boolean
LANGUAGE sql
STABLE
AS $function$
    SELECT CASE
        WHEN EXISTS (
            SELECT FROM resealed_batches AS resealed
            WHERE (resealed.writer_id, resealed.batch_no) = (batch.writer_id, batch.batch_no)
        ) THEN EXISTS (
            SELECT FROM resealed_batches AS last
            WHERE (last.writer_id, last.batch_no) = (batch.writer_id, batch.batch_no) AND last.digest_after = contents
                AND NOT EXISTS (
                    SELECT FROM resealed_batches AS next
                    WHERE (next.writer_id, next.batch_no) = (batch.writer_id, batch.batch_no)
                        AND next.digest_before = contents
                )
        )
        ELSE batch.digest = sha256(
            int2send(batch.format) || int8send(batch.writer_id) || int8send(batch.batch_no) || int8send(batch.first_seq)
            || int8send(batch.last_seq) || int4send(batch.event_count)
            || int8send((extract(epoch FROM batch.earliest) * 1000000)::bigint)
            || int8send((extract(epoch FROM batch.latest) * 1000000)::bigint)
            || coalesce(batch.previous_digest, '') || substr(batch.seal, 17) || contents
        )
    END
$function$
