"""QLoRA on prepared shards: every trained token accounted for."""
