-- Makes the partitions of roll-ups that are missing from first_day to last_day (UTC, both included), and says how many it
-- made: minutes have one a day, hours one a month.
--
-- As with the partitions of outcomes (see ensure_outcome_partitions) nobody who reads or writes waits for it, long ranges
-- come in pieces, and each call names its schema, since it acts in the owner's place.
CREATE FUNCTION ensure_rollup_partitions(first_day date, last_day date) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
AS $function$
DECLARE
    parent text;
    leaf text;
    first_begin date;
    next_begin date;
    made integer := 0;
BEGIN
    IF (first_day >= DATE '1970-01-01' AND first_day <= last_day AND last_day <= DATE '2199-12-31') IS NOT TRUE THEN
        RAISE EXCEPTION 'roll-ups from % to % have no partition: days go from 1970-01-01 to 2199-12-31',
            first_day, last_day
            USING ERRCODE = 'datetime_field_overflow';
    END IF;
    IF last_day - first_day >= 400 THEN
        RAISE EXCEPTION '% days of partitions at once are too many: at most 400', last_day - first_day + 1
            USING ERRCODE = 'program_limit_exceeded';
    END IF;

    PERFORM pg_catalog.pg_advisory_xact_lock(1651665779, 6);

    FOR parent, leaf, first_begin, next_begin IN
        SELECT wanted.parent, wanted.leaf, wanted.first_begin, wanted.next_begin
        FROM (
            SELECT
                'minute_rollups', 'minute_rollups_' || pg_catalog.to_char((first_day + number)::timestamp, 'YYYYMMDD'),
                first_day + number, first_day + number + 1
            FROM pg_catalog.generate_series(0, last_day - first_day) AS number
            UNION ALL
            SELECT
                'hour_rollups', 'hour_rollups_' || pg_catalog.to_char(month, 'YYYYMM'),
                month::date, (month + INTERVAL '1 month')::date
            FROM pg_catalog.generate_series(
                pg_catalog.date_trunc('month', first_day::timestamp), last_day::timestamp, INTERVAL '1 month'
            ) AS month
        ) AS wanted (parent, leaf, first_begin, next_begin)
        WHERE NOT EXISTS (
            SELECT
            FROM pg_catalog.pg_inherits
            JOIN pg_catalog.pg_class ON pg_class.oid = inhrelid
            WHERE inhparent IN ('minute_rollups'::regclass::oid, 'hour_rollups'::regclass::oid)
                AND NOT inhdetachpending AND relname = wanted.leaf
        )
        ORDER BY wanted.first_begin, wanted.parent
    LOOP
        EXECUTE pg_catalog.format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', leaf, parent);
        EXECUTE pg_catalog.format(
            'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            parent,
            leaf,
            pg_catalog.to_char(first_begin::timestamp, 'YYYY-MM-DD') || ' 00:00:00+00',
            pg_catalog.to_char(next_begin::timestamp, 'YYYY-MM-DD') || ' 00:00:00+00'
        );
        made := made + 1;
    END LOOP;
    RETURN made;
END
$function$
