-- Says why the roll-ups of a day (UTC) are not final; null if they are.
--
-- They are when no bucket of the day is marked, and every batch that touches the day was marked before: what the stored
-- snapshot does not see has not been, unless a dump brought it, with a number that this server has yet to come to: all of
-- that was marked when the server was found to be another. On another server than the snapshot's it says nothing.
CREATE FUNCTION uncounted_of(the_day date) RETURNS text
LANGUAGE sql
STABLE
AS $function$
    WITH span AS (
        SELECT the_day::timestamp AT TIME ZONE 'UTC' AS since, (the_day + 1)::timestamp AT TIME ZONE 'UTC' AS until
    )
    SELECT CASE
        WHEN EXISTS (
            SELECT FROM rollup_progress, pg_catalog.pg_control_system() AS control
            WHERE snapshot IS NULL OR server_id IS DISTINCT FROM control.system_identifier
        ) THEN 'nothing has been rolled up on this server yet'::text
        WHEN EXISTS (
            SELECT FROM rollup_marks, span WHERE started_at >= span.since AND started_at < span.until
        ) THEN 'some of it is still to be rolled up'::text
        WHEN EXISTS (
            SELECT FROM rollup_progress, writer_batches, span
            WHERE xid >= pg_catalog.pg_snapshot_xmin(snapshot)
                AND NOT pg_catalog.pg_visible_in_snapshot(xid, snapshot)
                AND xid < pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
                AND earliest < span.until AND latest >= span.since
        ) THEN 'more of it was stored since it was rolled up'::text
    END
$function$
