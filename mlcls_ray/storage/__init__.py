"""Where bytes come from and go to: uris, listing, fetching, the output store, manifest and ledger."""
