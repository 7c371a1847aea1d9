-- Gives a transition's link of the chain: SHA-256 of the link before it, its position, and the digest of what is stored
-- of it, in the binary form in which Postgres sends it. What is about a person goes in as a digest of its own.
CREATE OR REPLACE FUNCTION chain_transition(
    previous bytea,
    the_position bigint,
    occurred_at timestamptz,
    writer_id bigint,
    writer_seq bigint,
    generation integer,
    era integer,
    version integer,
    kind smallint,
    details_version smallint,
    details jsonb,
    private_digest bytea
) RETURNS bytea
LANGUAGE sql
STABLE
AS $function$
    SELECT sha256(
        previous || int8send(the_position) || sha256(
            timestamptz_send(occurred_at) || int8send(writer_id) || int8send(writer_seq) || int4send(generation)
            || int4send(era) || int4send(version) || int2send(kind) || int2send(details_version)
            || convert_to((details - '{reason,last_failure,causes,suspension}'::text[])::text, 'UTF8') || private_digest
        )
    )
$function$
