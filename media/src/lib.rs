//! See `client/docs/architecture.md`.
