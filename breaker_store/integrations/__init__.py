"""Other products, one in each module, and each an extra: `instrument` joins a store to one of them."""
