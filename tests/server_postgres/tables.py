"""The tables of the database that the recordings were made with."""

from __future__ import annotations

__all__ = ["OTHER", "OWNER", "TABLES"]

OWNER = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"

TABLES = """
drop table if exists messages, plain, private_notes, all_types, broadcasted;
truncate realtime.messages;
grant usage on schema public to anon, authenticated, service_role;
create table messages (
    id bigserial primary key, room text, body text, n int, meta jsonb,
    inserted_at timestamptz default now()
);
alter table messages replica identity full;
create table plain (id bigserial primary key, v text);
create table private_notes (id bigserial primary key, owner uuid, note text);
alter table private_notes enable row level security;
create policy own on private_notes to authenticated using (owner = auth.uid());
create table all_types (
    id bigserial primary key, c_bool bool, c_int2 int2, c_int4 int4, c_int8 int8,
    c_float4 float4, c_float8 float8, c_numeric numeric, c_text text, c_varchar varchar(20),
    c_json json, c_jsonb jsonb, c_uuid uuid, c_bytea bytea, c_date date, c_time time,
    c_ts timestamp, c_tstz timestamptz, c_int_arr int[], c_text_arr text[],
    c_int4range int4range, c_inet inet
);
create table broadcasted (id bigserial primary key, v text);
create or replace function tell_room() returns trigger language plpgsql security definer as $$
begin
    perform realtime.broadcast_changes(
        'private-room', tg_op, tg_op, tg_table_name, tg_table_schema, new, old
    );
    return null;
end
$$;
create trigger tell after insert or update or delete on broadcasted
    for each row execute function tell_room();
grant all on all tables in schema public to anon, authenticated, service_role;
alter publication supabase_realtime set table messages, plain, private_notes, all_types;

drop policy if exists readers on realtime.messages;
drop policy if exists writers on realtime.messages;
create policy readers on realtime.messages for select to authenticated
    using (realtime.topic() in ('private-room', 'read-only-room'));
create policy writers on realtime.messages for insert to authenticated
    with check (realtime.topic() = 'private-room');
"""
