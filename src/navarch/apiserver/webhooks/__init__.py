"""Calling webhooks: where they are (`services`), how they are asked (`client`), what they are asked and what their
answers mean (`reviews` for admission, `conversion` for custom objects)."""
