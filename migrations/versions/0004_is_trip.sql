-- Tells whether a transition is a trip: a breaker that was well opened. When a probe fails, the trip before goes on.
-- The same stands in the core, as Transition.is_trip.
CREATE OR REPLACE FUNCTION is_trip(kind smallint, details jsonb) RETURNS boolean
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN coalesce(kind = 10 AND details ->> 'from' = 'closed', false)
