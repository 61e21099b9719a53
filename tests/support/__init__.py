"""What tests share: toys, made-up studies, servers, recordings."""
