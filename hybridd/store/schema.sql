-- Made from hybridd/store/tables.py by `python -m hybridd.store.migrate render`. Do not edit.

CREATE TABLE alerts (
	id INTEGER NOT NULL,
	"key" TEXT NOT NULL,
	name TEXT NOT NULL,
	severity TEXT NOT NULL,
	state TEXT NOT NULL,
	message TEXT NOT NULL,
	provider TEXT,
	opened_at REAL NOT NULL,
	updated_at REAL NOT NULL,
	resolved_at REAL,
	acknowledged_at REAL,
	count INTEGER NOT NULL,
	data TEXT NOT NULL,
	PRIMARY KEY (id)
)
 STRICT;

CREATE UNIQUE INDEX alerts_live ON alerts ("key") WHERE state <> 'resolved';

CREATE TABLE boots (
	id INTEGER NOT NULL,
	boot_id TEXT NOT NULL,
	first_wall_ns INTEGER NOT NULL,
	first_boot_ns INTEGER NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (boot_id)
)
 STRICT;

CREATE TABLE calls (
	id INTEGER NOT NULL,
	request_id INTEGER NOT NULL,
	provider TEXT NOT NULL,
	account TEXT NOT NULL,
	model TEXT NOT NULL,
	task TEXT NOT NULL,
	boot INTEGER NOT NULL,
	admitted_boot_ns INTEGER NOT NULL,
	admitted_wall_ns INTEGER NOT NULL,
	requests INTEGER NOT NULL,
	input_tokens INTEGER NOT NULL,
	output_tokens INTEGER NOT NULL,
	bytes_down INTEGER NOT NULL,
	bytes_up INTEGER NOT NULL,
	usd_micro INTEGER NOT NULL,
	price TEXT,
	state TEXT DEFAULT 'dispatched' NOT NULL,
	ended_boot INTEGER,
	ended_boot_ns INTEGER,
	ended_wall_ns INTEGER,
	reported INTEGER,
	first_byte_boot_ns INTEGER,
	error_code TEXT,
	failed INTEGER,
	PRIMARY KEY (id)
)
 STRICT;

CREATE INDEX calls_open ON calls (id) WHERE state = 'dispatched';

CREATE TABLE choices (
	request_id INTEGER NOT NULL,
	choice TEXT NOT NULL,
	PRIMARY KEY (request_id)
)
 STRICT;

CREATE TABLE feedback (
	id INTEGER NOT NULL,
	at REAL NOT NULL,
	request_id INTEGER,
	score REAL NOT NULL,
	subject TEXT,
	comment TEXT,
	data TEXT NOT NULL,
	PRIMARY KEY (id)
)
 STRICT;

CREATE INDEX feedback_request ON feedback (request_id);

CREATE TABLE model_stats (
	provider TEXT NOT NULL,
	model TEXT NOT NULL,
	tokens_per_byte REAL NOT NULL,
	samples INTEGER NOT NULL,
	updated_wall_ns INTEGER NOT NULL,
	data TEXT NOT NULL,
	PRIMARY KEY (provider, model)
)
 WITHOUT ROWID,
 STRICT;

CREATE TABLE observations (
	"key" TEXT NOT NULL,
	provider TEXT NOT NULL,
	account TEXT NOT NULL,
	as_of_wall_ns INTEGER NOT NULL,
	data TEXT NOT NULL,
	PRIMARY KEY ("key")
)
 WITHOUT ROWID,
 STRICT;

CREATE TABLE probe (
	id INTEGER NOT NULL,
	filler BLOB NOT NULL,
	PRIMARY KEY (id)
)
 STRICT;

CREATE TABLE provider_state (
	provider TEXT NOT NULL,
	state TEXT NOT NULL,
	reason TEXT NOT NULL,
	since_wall_ns INTEGER NOT NULL,
	until_wall_ns INTEGER,
	data TEXT NOT NULL,
	PRIMARY KEY (provider)
)
 WITHOUT ROWID,
 STRICT;

CREATE TABLE requests (
	id INTEGER NOT NULL,
	at_wall_ns INTEGER NOT NULL,
	task TEXT NOT NULL,
	requested TEXT NOT NULL,
	provider TEXT NOT NULL,
	model TEXT NOT NULL,
	status INTEGER NOT NULL,
	error_code TEXT,
	stream INTEGER NOT NULL,
	cache TEXT NOT NULL,
	attempts INTEGER NOT NULL,
	input_tokens INTEGER,
	output_tokens INTEGER,
	usd_micro INTEGER NOT NULL,
	latency_us INTEGER NOT NULL,
	first_token_us INTEGER,
	overhead_us INTEGER,
	tier TEXT,
	subject TEXT,
	client TEXT,
	PRIMARY KEY (id)
)
 STRICT;

CREATE TABLE rollup_day (
	period INTEGER NOT NULL,
	provider TEXT NOT NULL,
	model TEXT NOT NULL,
	task TEXT NOT NULL,
	requests INTEGER NOT NULL,
	cache_hits INTEGER NOT NULL,
	failed_requests INTEGER NOT NULL,
	calls INTEGER NOT NULL,
	failed_calls INTEGER NOT NULL,
	input_tokens INTEGER NOT NULL,
	output_tokens INTEGER NOT NULL,
	bytes_down INTEGER NOT NULL,
	bytes_up INTEGER NOT NULL,
	usd_micro INTEGER NOT NULL,
	latency_us_sum INTEGER NOT NULL,
	latency_us_max INTEGER NOT NULL,
	first_token_us_sum INTEGER NOT NULL,
	first_token_count INTEGER NOT NULL,
	PRIMARY KEY (period, provider, model, task)
)
 WITHOUT ROWID,
 STRICT;

CREATE TABLE rollup_hour (
	period INTEGER NOT NULL,
	provider TEXT NOT NULL,
	model TEXT NOT NULL,
	task TEXT NOT NULL,
	requests INTEGER NOT NULL,
	cache_hits INTEGER NOT NULL,
	failed_requests INTEGER NOT NULL,
	calls INTEGER NOT NULL,
	failed_calls INTEGER NOT NULL,
	input_tokens INTEGER NOT NULL,
	output_tokens INTEGER NOT NULL,
	bytes_down INTEGER NOT NULL,
	bytes_up INTEGER NOT NULL,
	usd_micro INTEGER NOT NULL,
	latency_us_sum INTEGER NOT NULL,
	latency_us_max INTEGER NOT NULL,
	first_token_us_sum INTEGER NOT NULL,
	first_token_count INTEGER NOT NULL,
	PRIMARY KEY (period, provider, model, task)
)
 WITHOUT ROWID,
 STRICT;

CREATE TABLE samples (
	name TEXT NOT NULL,
	at REAL NOT NULL,
	value REAL NOT NULL,
	PRIMARY KEY (name, at)
)
 WITHOUT ROWID,
 STRICT;

CREATE TABLE silences (
	"key" TEXT NOT NULL,
	created_at REAL NOT NULL,
	until REAL NOT NULL,
	reason TEXT NOT NULL,
	PRIMARY KEY ("key")
)
 WITHOUT ROWID,
 STRICT;

CREATE TABLE runs (
	id INTEGER NOT NULL,
	boot INTEGER NOT NULL,
	pid INTEGER NOT NULL,
	version TEXT NOT NULL,
	started_wall_ns INTEGER NOT NULL,
	started_boot_ns INTEGER NOT NULL,
	stopped_wall_ns INTEGER,
	PRIMARY KEY (id),
	FOREIGN KEY(boot) REFERENCES boots (id)
)
 STRICT;

CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

INSERT INTO alembic_version (version_num) VALUES ('0001');
