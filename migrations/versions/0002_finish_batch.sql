-- Does what a batch needs beside its outcomes: rows for breakers that had no event before, and the changes.
--
-- `batch` has the keys `newcomers` (objects with `user_id` and `policy`), `changes` (see apply_changes) and `lines`
-- (imports: the identities of the lines). New rows come in the order of user_id and before any row is locked, so that
-- two writers can't wait for one another. A line that is there already is an error: two imports ran at once.
CREATE FUNCTION finish_batch(the_writer_id bigint, batch jsonb) RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    INSERT INTO breaker_states (user_id, policy)
    SELECT user_id, nullif(policy, 'null')
    FROM jsonb_to_recordset(batch -> 'newcomers') AS newcomer (user_id bigint, policy jsonb)
    ORDER BY user_id
    ON CONFLICT (user_id) DO NOTHING;

    INSERT INTO imported_lines (line)
    SELECT line::uuid FROM jsonb_array_elements_text(batch -> 'lines') AS line ORDER BY line;

    IF jsonb_array_length(coalesce(batch -> 'changes', '[]')) > 0 THEN
        PERFORM apply_changes(the_writer_id, batch -> 'changes');
    END IF;
END
$function$
