"""How evaluation scales past one process: measured on one machine, and a model of many."""
