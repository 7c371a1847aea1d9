-- Drops the minutes or days of a day, or the hours of the month that begins with it, if the policy lets go of them; says why
-- not otherwise, and null if it did. The fleet's go with them. See drop_outcomes.
CREATE FUNCTION drop_rollups(the_kind text, the_day date, the_actor text) RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
AS $function$
DECLARE
    due record;
    since timestamptz;
    until timestamptz;
BEGIN
    IF pg_catalog.current_setting('transaction_isolation'::text) <> 'read committed'::text THEN
        RAISE EXCEPTION 'roll-ups are dropped in a transaction that is READ COMMITTED'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    IF (the_kind = ANY (ARRAY['minutes', 'hours', 'days'])) IS NOT TRUE THEN
        RAISE EXCEPTION 'there are no roll-ups "%"', the_kind USING ERRCODE = 'invalid_parameter_value';
    END IF;

    PERFORM pg_catalog.set_config('lock_timeout'::text, '2s'::text, true);
    PERFORM FROM rollup_progress FOR UPDATE;
    PERFORM pg_catalog.set_config('lock_timeout'::text, '40ms'::text, true);

    SELECT span.last_day, span.relation INTO due FROM due_spans(the_kind) AS span WHERE span.first_day = the_day;
    IF due.last_day IS NULL THEN
        RETURN 'no policy lets go of it';
    END IF;

    since := the_day::timestamp AT TIME ZONE 'UTC';
    until := (due.last_day + 1)::timestamp AT TIME ZONE 'UTC';
    INSERT INTO dropped_rollups (kind, first_day, last_day, bytes, actor)
    SELECT the_kind, the_day, due.last_day, pg_catalog.pg_total_relation_size(due.relation), the_actor;
    DELETE FROM fleet_rollups
    WHERE bucket = CASE the_kind WHEN 'minutes'::text THEN 0::smallint WHEN 'hours'::text THEN 1::smallint ELSE 2::smallint END
        AND started_at >= since AND started_at < until;
    IF due.relation IS NULL THEN
        DELETE FROM day_rollups WHERE started_at >= since AND started_at < until;
    ELSE
        EXECUTE pg_catalog.format('DROP TABLE %s', due.relation::regclass);
    END IF;
    RETURN NULL;
END
$function$
