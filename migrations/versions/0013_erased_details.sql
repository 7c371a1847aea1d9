-- Takes the texts about a person out of a transition's details. The same stands in the codec, as erased_document.
CREATE OR REPLACE FUNCTION erased_details(details jsonb) RETURNS jsonb
LANGUAGE sql
IMMUTABLE
AS $function$
    SELECT details
        || CASE WHEN details ? 'reason' THEN jsonb_build_object('reason', NULL) ELSE '{}' END
        || CASE WHEN jsonb_typeof(details -> 'last_failure') = 'object'
            THEN jsonb_build_object('last_failure', (details -> 'last_failure') - 'trace_id' || nothing)
            ELSE '{}'
        END
        || CASE WHEN jsonb_typeof(details -> 'causes') = 'array' THEN jsonb_build_object('causes', (
            SELECT coalesce(jsonb_agg(cause - 'trace_id' || nothing ORDER BY number), '[]')
            FROM jsonb_array_elements(details -> 'causes') WITH ORDINALITY AS listed (cause, number)
        )) ELSE '{}' END
        || CASE WHEN jsonb_typeof(details -> 'suspension') = 'object'
            THEN jsonb_build_object('suspension', details -> 'suspension' || jsonb_build_object('reason', NULL))
            ELSE '{}'
        END
    FROM jsonb_build_object('error_type', NULL, 'error_message', NULL, 'operation', NULL) AS nothing
$function$
