"""API servers behind this one: which there are (`directory`), whether they can be asked (`availability`), what of them
is shown in discovery and OpenAPI (`documents`), and how requests go on to them (`proxy`)."""
