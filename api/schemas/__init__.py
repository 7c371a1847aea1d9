"""The questions and answers of the admin API, as they go over the wire; FastAPI documents them."""
