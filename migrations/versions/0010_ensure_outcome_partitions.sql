-- Makes the daily partitions of outcomes that are missing from first_day to last_day (UTC, both included), and says
-- how many it made.
--
-- LIKE and ATTACH take no lock that an append would wait for, or that would wait for an append; CREATE TABLE ...
-- PARTITION OF does both. A day that was detached, and not yet dropped, is an error (duplicate_table): it must not
-- come back beside its own past.
--
-- Each day takes a handful of locks until the end of the transaction, and the server's lock table is bounded: so a
-- call is bounded as well, and long ranges should come in pieces.
--
-- It acts in the owner's place, and whoever may create functions and operators in the log's schema could put one there
-- that fits its arguments better than Postgres' own. So each call names its schema, and each operator fits exactly.
CREATE OR REPLACE FUNCTION ensure_outcome_partitions(first_day date, last_day date) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
AS $function$
DECLARE
    day date;
    leaf text;
    made integer := 0;
BEGIN
    IF (first_day >= DATE '1970-01-01' AND first_day <= last_day AND last_day <= DATE '2199-12-31') IS NOT TRUE THEN
        RAISE EXCEPTION 'outcomes from % to % have no partition: days go from 1970-01-01 to 2199-12-31',
            first_day, last_day
            USING ERRCODE = 'datetime_field_overflow';
    END IF;
    IF last_day - first_day >= 400 THEN
        RAISE EXCEPTION '% days of partitions at once are too many: at most 400', last_day - first_day + 1
            USING ERRCODE = 'program_limit_exceeded';
    END IF;

    PERFORM pg_catalog.pg_advisory_xact_lock(1651665779, 2);

    FOR day, leaf IN
        SELECT wanted.day, wanted.leaf
        FROM (
            SELECT first_day + number, 'breaker_outcomes_' || pg_catalog.to_char((first_day + number)::timestamp, 'YYYYMMDD')
            FROM pg_catalog.generate_series(0, last_day - first_day) AS number
        ) AS wanted (day, leaf)
        WHERE NOT EXISTS (
            SELECT
            FROM pg_catalog.pg_inherits
            JOIN pg_catalog.pg_class ON pg_class.oid = inhrelid
            WHERE inhparent = 'breaker_outcomes'::regclass::oid AND NOT inhdetachpending AND relname = wanted.leaf
        )
        ORDER BY wanted.day
    LOOP
        EXECUTE pg_catalog.format('CREATE TABLE %I (LIKE breaker_outcomes INCLUDING ALL)', leaf);
        -- The row-level trigger comes with ATTACH; one for TRUNCATE does not.
        EXECUTE pg_catalog.format(
            'CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON %I EXECUTE FUNCTION refuse_log_change()', leaf
        );
        EXECUTE pg_catalog.format('ALTER TABLE %I ENABLE ALWAYS TRIGGER append_only_truncate', leaf);
        EXECUTE pg_catalog.format(
            'ALTER TABLE breaker_outcomes ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            leaf,
            pg_catalog.to_char(day::timestamp, 'YYYY-MM-DD') || ' 00:00:00+00',
            pg_catalog.to_char((day + 1)::timestamp, 'YYYY-MM-DD') || ' 00:00:00+00'
        );
        made := made + 1;
    END LOOP;
    RETURN made;
END
$function$
