"""Whether everything is as it should be: one small check a subject, each of which gives a finding."""
