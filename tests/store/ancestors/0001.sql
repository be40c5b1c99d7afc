INSERT INTO boots VALUES (1, 'boot-0', 1000, 10);
INSERT INTO runs VALUES (1, 1, 42, '0.1.0', 1000, 10, 2000);
INSERT INTO calls (id, request_id, provider, account, model, task, boot, admitted_boot_ns, admitted_wall_ns, requests,
    input_tokens, output_tokens, bytes_down, bytes_up, usd_micro, price, state, ended_boot, ended_boot_ns, ended_wall_ns,
    reported, first_byte_boot_ns, error_code, failed)
VALUES (1790000000000001, 1790000000000000, 'lab', 'lab', 'm1', 'chat', 1, 1, 1790000000000001000, 1, 10, 20, 0, 0, 5,
    NULL, 'settled', 1, 2, 1790000001000001000, 1, NULL, NULL, 0);
INSERT INTO requests VALUES (1790000000000000, 1790000000000000000, 'chat', 'auto', 'lab', 'm1', 200, NULL, 0, 'miss', 1,
    10, 20, 5, 1000000, NULL, 400, NULL, NULL, 'cli');
INSERT INTO choices VALUES (1790000000000000, '{}');
INSERT INTO rollup_hour VALUES (497222, 'lab', 'm1', 'chat', 1, 0, 0, 1, 0, 10, 20, 0, 0, 5, 1000000, 1000000, 0, 0);
INSERT INTO rollup_day VALUES (20717, 'lab', 'm1', 'chat', 1, 0, 0, 1, 0, 10, 20, 0, 0, 5, 1000000, 1000000, 0, 0);
INSERT INTO observations VALUES ('lab/requests/60s', 'lab', 'lab', 1, '{}');
INSERT INTO provider_state VALUES ('old', 'retired', 'switched off', 1, NULL, '{}');
INSERT INTO model_stats VALUES ('lab', 'm1', 0.25, 3, 1, '{}');
INSERT INTO alerts VALUES (1, 'k', 'Name', 'warning', 'open', 'text', NULL, 1.0, 1.0, NULL, NULL, 1, '{}');
INSERT INTO silences VALUES ('k', 1.0, 2.0, '');
INSERT INTO samples VALUES ('cpu', 1.0, 0.5);
INSERT INTO feedback VALUES (1, 1.0, 1790000000000000, 0.5, NULL, NULL, '{}');
INSERT INTO probe VALUES (1, x'00');
