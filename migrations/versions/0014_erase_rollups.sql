-- Puts a pseudonym in the place of a user in what was counted of them, without the types of their errors; the fleet loses
-- these too.
--
-- It is called when the user's events have their pseudonym. Outcomes that were stored in between have none, and are
-- counted again, apart. The caller has locked the row of the progress before all else, so that nothing is being counted
-- meanwhile: else what is counted of the events as they were would be stored after this.
CREATE FUNCTION erase_rollups(the_user_id bigint, pseudonym bigint) RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM FROM rollup_progress FOR UPDATE;

    -- What the fleet's types of errors would be if they were counted again.
    WITH own (bucket, started_at, drops, error_types) AS (
        SELECT 0, started_at, drops, error_types FROM minute_rollups WHERE user_id = the_user_id
        UNION ALL SELECT 1, started_at, drops, error_types FROM hour_rollups WHERE user_id = the_user_id
        UNION ALL SELECT 2, started_at, drops, error_types FROM day_rollups WHERE user_id = the_user_id
    )
    UPDATE fleet_rollups AS fleet SET error_types = (
        SELECT jsonb_object_agg(type, calls::bigint - coalesce((own.error_types ->> type)::bigint, 0))
        FROM jsonb_each_text(fleet.error_types) AS counted (type, calls)
        WHERE calls::bigint > coalesce((own.error_types ->> type)::bigint, 0)
    )
    FROM own
    WHERE (fleet.bucket, fleet.started_at, fleet.drops) = (own.bucket, own.started_at, own.drops)
        AND own.error_types IS NOT NULL;

    UPDATE minute_rollups SET user_id = pseudonym, error_types = NULL WHERE user_id = the_user_id;
    UPDATE hour_rollups SET user_id = pseudonym, error_types = NULL WHERE user_id = the_user_id;
    UPDATE day_rollups SET user_id = pseudonym, error_types = NULL WHERE user_id = the_user_id;
    DELETE FROM unhealthy_bots WHERE user_id = the_user_id;

    INSERT INTO rollup_marks (bucket, started_at)
    SELECT DISTINCT bucket, pg_catalog.date_trunc(unit, occurred_at, 'UTC')
    FROM breaker_outcomes
    CROSS JOIN (VALUES (0::smallint, 'minute'), (1::smallint, 'hour'), (2::smallint, 'day')) AS length (bucket, unit)
    WHERE user_id = the_user_id
    ON CONFLICT DO NOTHING;
END
$function$
