-- Does what a batch needs beside its outcomes: rows for breakers that had no event before, the changes, and what is
-- missing.
--
-- `batch` has the keys `newcomers` (objects with `user_id` and `policy`), `changes` (see apply_changes), `lines`
-- (imports: the identities of the lines) and `gaps` (rows of log_gaps without their writer). New rows come in the order
-- of user_id and before any row is locked, so that two writers can't wait for one another. A line that is there already
-- is an error: two imports ran at once. How many breakers there are is counted at the end, since the row that says so is
-- the position's, which is the last to be locked; a batch without newcomers doesn't touch it here.
CREATE OR REPLACE FUNCTION finish_batch(the_writer_id bigint, batch jsonb) RETURNS void
LANGUAGE plpgsql
AS $function$
DECLARE
    newcomers integer;
BEGIN
    INSERT INTO log_gaps (
        writer_id, batch_no, gap_no, reason, first_at, last_at, successes, refusals, failures, transitions, unknown
    )
    SELECT
        the_writer_id, batch_no, gap_no, reason, first_at, last_at, successes, refusals, failures, transitions, unknown
    FROM jsonb_to_recordset(batch -> 'gaps') AS gap (
        batch_no bigint, gap_no integer, reason smallint, first_at timestamptz, last_at timestamptz, successes bigint,
        refusals bigint, failures bigint, transitions bigint, unknown bigint
    );

    INSERT INTO breaker_states (user_id, policy)
    SELECT user_id, nullif(policy, 'null')
    FROM jsonb_to_recordset(batch -> 'newcomers') AS newcomer (user_id bigint, policy jsonb)
    ORDER BY user_id
    ON CONFLICT (user_id) DO NOTHING;
    GET DIAGNOSTICS newcomers = ROW_COUNT;

    INSERT INTO imported_lines (line)
    SELECT line::uuid FROM jsonb_array_elements_text(batch -> 'lines') AS line ORDER BY line;

    IF jsonb_array_length(coalesce(batch -> 'changes', '[]')) > 0 THEN
        PERFORM apply_changes(the_writer_id, batch -> 'changes');
    END IF;

    IF newcomers > 0 THEN
        UPDATE log_position SET breakers = breakers + newcomers;
    END IF;
END
$function$
