"""Training the student: the ORPO loss and packed batches (no Ray) below, the Ray Train worker above."""
