-- Modes: rows are staged like any load and merged into their table, or merged batch by batch.
ALTER TABLE pgrung.imports
    ADD COLUMN mode text NOT NULL DEFAULT 'append',
    ADD COLUMN maps jsonb,                 -- columns that are expressions, and those; NULL: none
    ADD COLUMN merging jsonb,              -- how each batch is merged: mode, key, newer; NULL: none is
    ADD COLUMN job text,                   -- what must not run twice at a time
    ADD COLUMN merged jsonb,               -- what became of the records of a staged import; counts
    ADD COLUMN replaced_at timestamptz;    -- since then the table has nothing of its rows

ALTER TABLE pgrung.spans ADD COLUMN updated bigint, ADD COLUMN unchanged bigint,
    ADD COLUMN ignored bigint, ADD COLUMN superseded bigint;
ALTER TABLE pgrung.unlogged_spans ADD COLUMN updated bigint, ADD COLUMN unchanged bigint,
    ADD COLUMN ignored bigint, ADD COLUMN superseded bigint;

ALTER TABLE pgrung.sources ADD COLUMN bytes bigint; -- that were committed, once the spans are gone

-- Tables of schema pgrung in which the rows of an unfinished import wait to be merged.
CREATE TABLE pgrung.stagings (
    staging    text PRIMARY KEY,           -- schema and table, quoted
    import_id  text UNIQUE REFERENCES pgrung.imports ON DELETE SET NULL,
    job        text NOT NULL,
    target     text NOT NULL,              -- where the rows go: schema and table, quoted
    target_oid oid NOT NULL,
    shape      jsonb NOT NULL,             -- what its rows are; another shape, another table
    made_at    timestamptz NOT NULL DEFAULT now()
);

-- How far a merge has come. Unlogged, as staged rows are: a crash of the server empties all of it.
CREATE UNLOGGED TABLE pgrung.merges (
    staging         text PRIMARY KEY REFERENCES pgrung.stagings ON DELETE CASCADE,
    bounds          text[],                -- of the parts that are merged one by one
    losers          bigint,                -- records that lost to another of their key in this run
    losers_earlier  bigint NOT NULL DEFAULT 0
);
CREATE UNLOGGED TABLE pgrung.merged_parts (
    staging text NOT NULL REFERENCES pgrung.stagings ON DELETE CASCADE,
    part    integer NOT NULL,
    merged  jsonb NOT NULL,                -- what became of its records
    earlier boolean NOT NULL DEFAULT false, -- in a run that did not finish: the table may be another now
    PRIMARY KEY (staging, part)
);

-- Who is at which job. A run that takes over raises the epoch, and waits for whoever has it locked.
CREATE TABLE pgrung.leases (
    job        text PRIMARY KEY,
    epoch      bigint NOT NULL,
    host       text NOT NULL,
    process    integer NOT NULL,
    instance   text NOT NULL,              -- tells that process from others of its number
    since      timestamptz NOT NULL,
    renewed_at timestamptz NOT NULL,       -- -infinity once it is given back
    UNIQUE (job, epoch)
);
