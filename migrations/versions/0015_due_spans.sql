-- Gives what a policy lets go, oldest first: days of outcomes or of minutes, months of hours (each a partition), or days of
-- which there are only rows. Nothing without a policy.
--
-- Age counts from when events were stored: a span is as young as the youngest batch that touches it, and not let go while
-- it isn't over for as long. Where an import has touched it, it stays until the policy says otherwise.
CREATE FUNCTION due_spans(the_kind text) RETURNS TABLE (first_day date, last_day date, relation oid)
LANGUAGE sql
STABLE
AS $function$
    WITH policy AS (
        SELECT pg_catalog.now() - pg_catalog.make_interval(days => keep_days) AS kept_from, imports
        FROM retention
        WHERE kind = the_kind
    ), leaf AS (
        SELECT pg_class.oid, pg_class.relname::text AS name
        FROM pg_catalog.pg_inherits
        JOIN pg_catalog.pg_class ON pg_class.oid = inhrelid
        WHERE NOT inhdetachpending AND pg_class.relname::text ~ '_[0-9]{6}([0-9]{2})?$'::text AND inhparent = CASE the_kind
            WHEN 'outcomes'::text THEN 'breaker_outcomes'::regclass::oid
            WHEN 'minutes'::text THEN 'minute_rollups'::regclass::oid
            WHEN 'hours'::text THEN 'hour_rollups'::regclass::oid
        END
    ), span AS (
        SELECT
            pg_catalog.to_date(pg_catalog.right(name, 8), 'YYYYMMDD'::text) AS first_day,
            pg_catalog.to_date(pg_catalog.right(name, 8), 'YYYYMMDD'::text) AS last_day,
            oid
        FROM leaf
        WHERE the_kind <> 'hours'::text
        UNION ALL
        SELECT month, (month::timestamp + interval '1 month' - interval '1 day')::date, oid
        FROM (
            SELECT pg_catalog.to_date(pg_catalog.right(name, 6), 'YYYYMM'::text) AS month, oid FROM leaf
            WHERE the_kind = 'hours'::text
        ) AS months
        UNION ALL
        SELECT DISTINCT
            (started_at AT TIME ZONE 'UTC')::date, (started_at AT TIME ZONE 'UTC')::date, NULL::oid
        FROM fleet_rollups
        WHERE the_kind = 'days'::text AND bucket = 2::smallint
    )
    SELECT span.first_day, span.last_day, span.oid
    FROM span, policy
    WHERE (span.last_day + 1)::timestamp AT TIME ZONE 'UTC' <= kept_from
        AND NOT EXISTS (
            SELECT FROM writer_batches
            WHERE earliest < (span.last_day + 1)::timestamp AT TIME ZONE 'UTC'
                AND latest >= span.first_day::timestamp AT TIME ZONE 'UTC'
                AND (recorded_at > kept_from OR (source = 1::smallint AND NOT imports))
        )
    ORDER BY span.first_day
$function$
