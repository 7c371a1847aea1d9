-- Counts the breakers anew, in all and by state. The position's row is locked first: every append that changes a count
-- does so at its end, under this lock, so those that have not are not seen here, and add what they change afterwards.
CREATE OR REPLACE FUNCTION recount_breakers() RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM FROM log_position FOR UPDATE;
    UPDATE log_position SET (breakers, open_breakers, half_open_breakers, suspended_breakers) = (
        SELECT
            count(*), count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2),
            count(*) FILTER (WHERE suspended)
        FROM breaker_states
    );
END
$function$
