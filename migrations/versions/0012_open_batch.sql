-- Enters a batch into the ledger: the first thing that the transaction of a flush does.
--
-- A batch that is there with the same digest is stored already: BS000, which the sender takes for success. While an
-- earlier sending of it is still under way in another session, this one waits for its end. Anything else that does not
-- fit is an error that a person must look at: BS001.
--
-- A batch without a seal is named as such: it can't become one later.
CREATE OR REPLACE FUNCTION open_batch(
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
    the_seal bytea DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql
AS $function$
DECLARE
    stored writer_batches;
BEGIN
    INSERT INTO writer_batches (
        writer_id, batch_no, first_seq, last_seq, event_count, format, source, digest, previous_digest, earliest, latest,
        seal
    ) VALUES (
        the_writer_id, the_batch_no, the_first_seq, the_last_seq, the_event_count, the_format, the_source,
        the_digest, the_previous_digest, the_earliest, the_latest,
        the_seal
    ) ON CONFLICT (writer_id, batch_no) DO NOTHING;

    IF NOT FOUND THEN
        SELECT * INTO STRICT stored FROM writer_batches
        WHERE writer_id = the_writer_id AND batch_no = the_batch_no;
        IF stored.digest = the_digest THEN
            RAISE EXCEPTION 'batch % of writer % is stored already', the_batch_no, the_writer_id
                USING ERRCODE = 'BS000';
        END IF;
        RAISE EXCEPTION 'batch % of writer % is stored with other contents: events % to % instead of % to %',
            the_batch_no, the_writer_id, stored.first_seq, stored.last_seq, the_first_seq, the_last_seq
            USING ERRCODE = 'BS001';
    END IF;

    IF the_seal IS NULL THEN
        INSERT INTO unsealed_batches (writer_id, batch_no) VALUES (the_writer_id, the_batch_no);
    END IF;

    IF the_batch_no > 1 THEN
        SELECT * INTO stored FROM writer_batches
        WHERE writer_id = the_writer_id AND batch_no = the_batch_no - 1;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'batch % of writer % has no predecessor: the database is older than the writer',
                the_batch_no, the_writer_id
                USING ERRCODE = 'BS001';
        END IF;
        IF stored.digest IS DISTINCT FROM the_previous_digest OR stored.last_seq >= the_first_seq THEN
            RAISE EXCEPTION 'batch % of writer % does not follow batch % as it is stored',
                the_batch_no, the_writer_id, the_batch_no - 1
                USING ERRCODE = 'BS001';
        END IF;
    END IF;
END
$function$
