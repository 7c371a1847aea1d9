-- Says why the outcomes of a day can't be dropped yet; null if nothing is against it but the policies.
--
-- Roll-ups are final when no bucket of the day is marked, and every batch that touches the day was marked before: what the
-- stored snapshot does not see has not been. On another server than the snapshot's it says nothing.
CREATE FUNCTION outcomes_stay_for(the_day date) RETURNS text
LANGUAGE sql
STABLE
AS $function$
    WITH span AS (
        SELECT the_day::timestamp AT TIME ZONE 'UTC' AS since, (the_day + 1)::timestamp AT TIME ZONE 'UTC' AS until
    ), owing AS (
        SELECT pg_catalog.count(*) AS count
        FROM span CROSS JOIN LATERAL (SELECT FROM breakers_owing(span.until)) AS breaker
    )
    SELECT CASE
        WHEN EXISTS (
            SELECT FROM rollup_progress, pg_catalog.pg_control_system() AS control
            WHERE snapshot IS NULL OR server_id IS DISTINCT FROM control.system_identifier
        ) THEN 'nothing has been rolled up here yet'::text
        WHEN EXISTS (
            SELECT FROM rollup_marks, span WHERE started_at >= span.since AND started_at < span.until
        ) THEN 'its roll-ups are not final: some of it is still to be counted'::text
        WHEN EXISTS (
            SELECT FROM rollup_progress, writer_batches, span
            WHERE xid >= pg_catalog.pg_snapshot_xmin(snapshot)
                AND NOT pg_catalog.pg_visible_in_snapshot(xid, snapshot)
                AND earliest < span.until AND latest >= span.since
        ) THEN 'its roll-ups are not final: more of it was stored since the last run'::text
        WHEN owing.count > 0 THEN pg_catalog.format(
            'the counts of %s breakers still need it, and are to be carried over first'::text, owing.count
        )
    END
    FROM owing
$function$
