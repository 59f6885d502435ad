"""The client's side: a key made here, the configuration from control, chat, receipts kept and verified."""
