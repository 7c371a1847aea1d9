-- Seals what of a transition is about a person: whose it is, and texts. The salt is forgotten when they are erased; the
-- digest is kept then, and tells nothing.
CREATE OR REPLACE FUNCTION private_transition_digest(salt bytea, user_id bigint, details jsonb) RETURNS bytea
LANGUAGE sql
STABLE
AS $function$
    SELECT sha256(
        salt || int8send(user_id) || convert_to(
            (
                jsonb_build_array(details -> 'reason', details -> 'last_failure', details -> 'causes')
                || CASE WHEN details ? 'suspension' THEN jsonb_build_array(details -> 'suspension') ELSE '[]' END
            )::text,
            'UTF8'
        )
    )
$function$
