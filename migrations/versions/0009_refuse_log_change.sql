-- Refuses the change that fired it, whoever makes it: what is in the log stays as it was written. One way leads past it:
-- erasing a person, which the function `erase_person` does as the owner of the log, and of which the log itself tells.
CREATE OR REPLACE FUNCTION refuse_log_change() RETURNS trigger
LANGUAGE plpgsql
AS $function$
BEGIN
    IF TG_OP = 'UPDATE'
        AND current_setting('breaker_store.erasing', true) = pg_current_xact_id()::text
        AND (SELECT pg_get_userbyid(relowner) = current_user FROM pg_class WHERE oid = TG_RELID)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% on "%" is refused: the log is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
END
$function$
