-- Drops the outcomes of a day (UTC), if the policy lets go of it and no older one; says why not otherwise, and null if it did.
--
-- It acts in the owner's place, and so sees to the policy itself: who calls it can do no more than that. Nor may it be
-- called in a snapshot of before.
--
-- The order of locks is what keeps appends from waiting. First the progress of the roll-ups, for which no append waits, so
-- that nothing is counted while the day goes. Then the day alone, against late events; all is looked at under this. Last the
-- parent, for which whatever is appended waits: so it is asked for during a moment only, and held for what it takes to
-- change the catalog. Whoever calls it tries again after lock_not_available. The files are deleted after the commit, when
-- all locks are gone.
--
-- DETACH CONCURRENTLY would ask for less, but can't run in a function: whoever drops days would need the owner's rights,
-- and between its two transactions the day is neither here nor gone, so a process that dies there leaves work to a person.
-- A plain DETACH takes the same locks as DROP, for longer.
CREATE FUNCTION drop_outcomes(the_day date, the_actor text) RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
AS $function$
DECLARE
    leaf text := 'breaker_outcomes_' || pg_catalog.to_char(the_day::timestamp, 'YYYYMMDD'::text);
    due record;
    refusal text;
    earlier_drops integer;
    owing bigint;
    size bigint;
    outcomes bigint;
BEGIN
    IF pg_catalog.current_setting('transaction_isolation'::text) <> 'read committed'::text THEN
        RAISE EXCEPTION 'days are dropped in a transaction that is READ COMMITTED'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;

    PERFORM pg_catalog.set_config('lock_timeout'::text, '2s'::text, true);
    PERFORM FROM rollup_progress FOR UPDATE;
    PERFORM pg_catalog.set_config('lock_timeout'::text, '40ms'::text, true);

    SELECT first_day INTO due FROM due_spans('outcomes'::text) LIMIT 1;
    IF due.first_day IS NULL OR due.first_day > the_day THEN
        RETURN 'no policy lets go of it';
    ELSIF due.first_day < the_day THEN
        RETURN pg_catalog.format('the outcomes of %s go first'::text, due.first_day);
    END IF;

    EXECUTE pg_catalog.format('LOCK TABLE %I IN SHARE MODE', leaf);
    refusal := uncounted_of(the_day);
    IF refusal IS NOT NULL THEN
        RETURN refusal;
    END IF;
    SELECT pg_catalog.count(*) INTO owing FROM breakers_owing((the_day + 1)::timestamp AT TIME ZONE 'UTC');
    IF owing > 0 THEN
        RETURN pg_catalog.format('the counts of %s breakers still need it'::text, owing);
    END IF;

    size := pg_catalog.pg_total_relation_size(leaf::regclass);
    SELECT pg_catalog.count(*) INTO earlier_drops FROM dropped_partitions WHERE day = the_day;
    SELECT successes + failures + refusals INTO outcomes FROM fleet_rollups
    WHERE bucket = 2::smallint AND drops = earlier_drops AND started_at = the_day::timestamp AT TIME ZONE 'UTC';
    IF outcomes IS NULL THEN
        -- There were none, or what was counted of the day was dropped before.
        EXECUTE pg_catalog.format(
            'SELECT coalesce(pg_catalog.sum(coalesce(count, 1)), 0)::bigint FROM %I', leaf
        ) INTO outcomes;
    END IF;
    INSERT INTO dropped_partitions (day, drops, outcomes, bytes, actor)
    SELECT the_day, earlier_drops + 1, outcomes, size, the_actor;
    EXECUTE pg_catalog.format('DROP TABLE %I', leaf);
    RETURN NULL;
END
$function$
