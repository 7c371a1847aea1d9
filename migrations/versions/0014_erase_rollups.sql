-- Puts a pseudonym in the place of a user in what was counted of them, without the types of their errors.
--
-- It is called when the user's events have their pseudonym. Outcomes that were stored in between have none, and are
-- counted again, apart. The caller has locked the row of the progress before all else, so that nothing is being counted
-- meanwhile: else what is counted of the events as they were would be stored after this.
CREATE FUNCTION erase_rollups(the_user_id bigint, pseudonym bigint) RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM FROM rollup_progress FOR UPDATE;

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
