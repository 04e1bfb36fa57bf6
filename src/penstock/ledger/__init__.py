"""The books: `book` is the only writer of entries, `audit` recomputes and compares."""
