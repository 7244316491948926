"""The rules of a session's life, its errors and documents: pure, and imported by everybody."""
