import os

import jwt
from fastapi import Request

from breaker_store.api.app import create_app
from breaker_store.api.authentication import Principal, Role, read_bearer

PUBLIC_KEY = os.environ["LOGIN_PUBLIC_KEY"]  # of the identity provider, as PEM


async def authenticate(request: Request) -> Principal | None:
    try:
        claims = jwt.decode(
            read_bearer(request.headers) or "",
            PUBLIC_KEY,
            algorithms=["RS256"],
            audience="breaker-store",
            issuer="https://login.example.com",
            options={"require": ["exp", "sub"]},
        )
    except jwt.InvalidTokenError:
        return None  # answered with 401
    acts = "breaker-operators" in claims.get("groups", [])
    return Principal(name=claims["sub"], role=Role.OPERATOR if acts else Role.VIEWER)


app = create_app(authenticate=authenticate)
