-- Takes transitions into the log, each by compare-and-set on its breaker's version and last transition, and brings the
-- breakers' rows up to date. `changes` are transitions and marks in the order of their numbers; see `entry` below.
--
-- A transition that wins takes the next position; one that loses is kept without a position (superseded), and so is
-- what was built on it, since its predecessor never came to hold. Losing aborts nothing.
--
-- Each that wins is a link of the chain: see chain_transition. The end of the chain stands beside the position.
--
-- How many breakers are open, half-open and suspended is kept beside the position: it changes with transitions alone, and the
-- position's row is locked for them anyway.
--
-- Locks: the breakers' rows in the order of user_id, so that two writers can't wait for one another; the position at
-- the very end, since every writer with a transition waits for it. It is sent together with COMMIT.
CREATE OR REPLACE FUNCTION apply_changes(the_writer_id bigint, changes jsonb) RETURNS void
LANGUAGE plpgsql
AS $function$
DECLARE
    change record;
    transitions integer := 0;
    winners bigint[] := '{}';
    state_before smallint;
    suspended_before boolean;
    more_open integer := 0;
    more_half_open integer := 0;
    more_suspended integer := 0;
    users bigint[];
    found_rows integer;
    made_rows integer := 0;
    head bytea;
    place bigint;
    link bytea;
    salt bytea;
    last_position bigint;
BEGIN
    users := ARRAY(SELECT DISTINCT (element ->> 'user_id')::bigint FROM jsonb_array_elements(changes) AS element);
    PERFORM FROM breaker_states WHERE user_id = ANY (users) ORDER BY user_id FOR UPDATE;
    GET DIAGNOSTICS found_rows = ROW_COUNT;
    IF found_rows < cardinality(users) THEN
        -- Somebody was erased, and goes on: their writer believes that the row is there.
        INSERT INTO breaker_states (user_id) SELECT unnest(users) ORDER BY 1 ON CONFLICT (user_id) DO NOTHING;
        GET DIAGNOSTICS made_rows = ROW_COUNT;
    END IF;

    FOR change IN
        SELECT * FROM jsonb_to_recordset(changes) AS entry (
            user_id bigint, seq bigint, at timestamptz, mark text, kind smallint, version integer, generation integer,
            era integer, follows_writer_id bigint, follows_writer_seq bigint, state smallint, failure_count integer, last_failure jsonb,
            opened_at timestamptz, retry_at timestamptz, policy jsonb, policy_is_own boolean, forced boolean,
            suspended boolean, success_count integer, details jsonb
        )
        ORDER BY seq
    LOOP
        IF change.mark = 'failed' THEN
            UPDATE breaker_states SET
                tail_writer = CASE
                    WHEN tail_until > change.at THEN tail_writer
                    WHEN tail_until = change.at AND tail_writer <> the_writer_id THEN 0
                    ELSE the_writer_id
                END,
                tail_from = least(tail_from, change.at),
                tail_until = greatest(tail_until, change.at),
                last_failure = CASE
                    WHEN last_failure ->> 'at' > change.last_failure ->> 'at' THEN last_failure
                    ELSE nullif(change.last_failure, 'null')
                END
            WHERE user_id = change.user_id AND era = change.era;
        ELSIF change.mark = 'run_ended' THEN
            -- Every failure of a run is marked, so it is known whether one came after this success. Where none did,
            -- the sub-select gives no row, and the three become null.
            UPDATE breaker_states SET
                (tail_from, tail_until, tail_writer) = (
                    SELECT greatest(tail_from, change.at), tail_until, tail_writer
                    WHERE tail_until > change.at OR (tail_until = change.at AND tail_writer <> the_writer_id)
                ),
                last_failure = CASE
                    WHEN last_failure ->> 'at' > change.last_failure ->> 'at' THEN last_failure
                    ELSE coalesce(nullif(change.last_failure, 'null'), last_failure)
                END,
                -- Also of a count that was carried over.
                failure_count = 0
            WHERE user_id = change.user_id AND era = change.era AND tail_from IS NOT NULL;
        ELSIF change.mark = 'probe_succeeded' THEN
            UPDATE breaker_states SET success_count = success_count + 1
            WHERE user_id = change.user_id AND era = change.era;
        ELSE
            transitions := transitions + 1;
            UPDATE breaker_states SET
                state = change.state,
                version = change.version,
                last_writer_id = the_writer_id,
                last_writer_seq = change.seq,
                generation = change.generation,
                era = change.era,
                since = change.at,
                opened_at = change.opened_at,
                retry_at = change.retry_at,
                failure_count = CASE WHEN era = change.era THEN failure_count ELSE change.failure_count END,
                success_count = CASE WHEN era = change.era THEN success_count ELSE coalesce(change.success_count, 0) END,
                last_failure = CASE WHEN era = change.era THEN last_failure ELSE nullif(change.last_failure, 'null') END,
                -- A closed breaker with failures that were carried over counts something from the beginning.
                tail_from = CASE
                    WHEN era = change.era THEN tail_from
                    WHEN change.state = 0 AND change.failure_count > 0 THEN change.at
                END,
                tail_until = CASE
                    WHEN era = change.era THEN tail_until
                    WHEN change.state = 0 AND change.failure_count > 0 THEN change.at
                END,
                tail_writer = CASE
                    WHEN era = change.era THEN tail_writer
                    WHEN change.state = 0 AND change.failure_count > 0 THEN the_writer_id
                END,
                policy = change.policy,
                policy_is_own = change.policy_is_own,
                -- A process of an earlier version says nothing of it, and forces nothing open.
                forced = coalesce(change.forced, false),
                suspended = coalesce(change.suspended, false),
                trips = trips + is_trip(change.kind, change.details)::integer,
                trip_error = CASE
                    WHEN is_trip(change.kind, change.details) THEN change.details #>> '{causes,-1,error_type}'
                    ELSE trip_error
                END
            FROM (SELECT user_id AS id, breaker.state, breaker.suspended FROM breaker_states AS breaker) AS before
            WHERE before.id = change.user_id
                AND user_id = change.user_id
                AND version = change.version - 1
                AND last_writer_id IS NOT DISTINCT FROM change.follows_writer_id
                AND last_writer_seq IS NOT DISTINCT FROM change.follows_writer_seq
            RETURNING before.state, before.suspended INTO state_before, suspended_before;
            IF FOUND THEN
                winners := winners || change.seq;
                more_open := more_open + (change.state = 1)::integer - (state_before = 1)::integer;
                more_half_open := more_half_open + (change.state = 2)::integer - (state_before = 2)::integer;
                more_suspended := more_suspended + coalesce(change.suspended, false)::integer - suspended_before::integer;
            END IF;
        END IF;
    END LOOP;

    IF made_rows > 0 THEN
        UPDATE log_position SET breakers = breakers + made_rows;
    END IF;
    IF transitions = 0 THEN
        RETURN;
    END IF;

    IF cardinality(winners) > 0 THEN
        SELECT last, chain INTO last_position, head FROM log_position FOR UPDATE;
    END IF;
    FOR change IN
        SELECT * FROM jsonb_to_recordset(changes) AS entry (
            user_id bigint, seq bigint, at timestamptz, kind smallint, version integer, generation integer, era integer,
            details jsonb
        )
        WHERE kind IS NOT NULL
        ORDER BY seq
    LOOP
        place := NULL;
        link := NULL;
        salt := NULL;
        IF change.seq = ANY (winners) THEN
            last_position := last_position + 1;
            place := last_position;
            salt := uuid_send(gen_random_uuid());
            head := chain_transition(
                head, place, change.at, the_writer_id, change.seq, change.generation, change.era, change.version,
                change.kind, 1::smallint, change.details, private_transition_digest(salt, change.user_id, change.details)
            );
            link := head;
        END IF;
        INSERT INTO breaker_events (
            occurred_at, user_id, writer_id, writer_seq, position, generation, era, version, kind, details,
            details_version, chain, salt
        ) VALUES (
            change.at, change.user_id, the_writer_id, change.seq, place, change.generation, change.era, change.version,
            change.kind, change.details, 1, link, salt
        );
    END LOOP;

    IF cardinality(winners) > 0 THEN
        UPDATE log_position SET
            last = last_position,
            chain = head,
            open_breakers = open_breakers + more_open,
            half_open_breakers = half_open_breakers + more_half_open,
            suspended_breakers = suspended_breakers + more_suspended;
    END IF;
END
$function$
