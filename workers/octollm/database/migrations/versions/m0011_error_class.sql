ALTER TABLE attempts ADD COLUMN error_class text CHECK (error_class IN ('transient', 'permanent', 'needs_person'));
