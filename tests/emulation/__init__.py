"""Instructions that this machine may lack, emulated so that code made of them can be tested."""
