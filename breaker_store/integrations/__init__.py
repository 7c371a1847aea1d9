"""Other products, one in each module, and each an extra."""
