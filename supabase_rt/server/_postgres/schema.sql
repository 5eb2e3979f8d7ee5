-- The objects that the local server needs in a database. Missing ones are created; existing ones
-- are not changed. Each part begins with its purpose, which the error names if the user lacks the
-- rights. Some parts only try a statement that would otherwise fail at the first join.

-- to: create the roles anon, authenticated and service_role
do $$
declare
    wanted text;
begin
    foreach wanted in array array['anon', 'authenticated', 'service_role'] loop
        if not exists (select from pg_roles where rolname = wanted) then
            execute format('create role %I nologin noinherit', wanted);
            execute format('grant %I to current_user', wanted);
            if wanted = 'service_role' then
                alter role service_role bypassrls;
            end if;
        end if;
    end loop;
end
$$;

-- to: act as anon, authenticated and service_role
set local role anon;
set local role authenticated;
set local role service_role;
reset role;

-- to: create the schema auth
do $$
begin
    if to_regnamespace('auth') is null then
        create schema auth;
        grant usage on schema auth to anon, authenticated, service_role;
    end if;
end
$$;

-- to: create functions in the schema auth
do $outer$
begin
    if to_regprocedure('auth.uid()') is null then
        create function auth.uid() returns uuid language sql stable as $$
            select coalesce(
                nullif(current_setting('request.jwt.claim.sub', true), ''),
                nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
            )::uuid
        $$;
    end if;
    if to_regprocedure('auth.role()') is null then
        create function auth.role() returns text language sql stable as $$
            select coalesce(
                nullif(current_setting('request.jwt.claim.role', true), ''),
                nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
            )
        $$;
    end if;
    if to_regprocedure('auth.jwt()') is null then
        create function auth.jwt() returns jsonb language sql stable as $$
            select nullif(current_setting('request.jwt.claims', true), '')::jsonb
        $$;
    end if;
end
$outer$;

-- to: create the schema realtime
do $$
begin
    if to_regnamespace('realtime') is null then
        create schema realtime;
        grant usage on schema realtime to anon, authenticated, service_role;
    end if;
end
$$;

-- to: create the table realtime.messages
do $$
begin
    if to_regclass('realtime.messages') is null then
        create table realtime.messages (
            topic text not null,
            extension text not null,
            payload jsonb,
            event text,
            private boolean default false,
            updated_at timestamp not null default timezone('utc', now()),
            inserted_at timestamp not null default timezone('utc', now()),
            id uuid not null default gen_random_uuid() primary key,
            binary_payload bytea
        );
        create index on realtime.messages (topic, inserted_at desc)
            where private and extension = 'broadcast';
        alter table realtime.messages enable row level security;
        grant select, insert on realtime.messages to anon, authenticated, service_role;
    end if;
end
$$;

-- to: try the policies on realtime.messages
do $$
begin
    if row_security_active('realtime.messages') then
        raise insufficient_privilege using message =
            'they hold for it, too: alter table realtime.messages owner to '
            || quote_ident(current_user);
    end if;
end
$$;

-- to: create functions in the schema realtime
do $outer$
begin
    if to_regprocedure('realtime.topic()') is null then
        create function realtime.topic() returns text language sql stable as $$
            select nullif(current_setting('realtime.topic', true), '')::text
        $$;
    end if;
    if to_regprocedure('realtime.send(jsonb, text, text, boolean)') is null then
        create function realtime.send(
            payload jsonb, event text, topic text, private boolean default true
        ) returns void language plpgsql as $$
        declare
            new_id uuid := gen_random_uuid();
        begin
            begin
                if not payload ? 'id' then
                    payload := jsonb_set(payload, '{id}', to_jsonb(new_id));
                end if;
                perform set_config('realtime.topic', topic, true);
                insert into realtime.messages (id, payload, event, topic, private, extension)
                values (new_id, payload, event, topic, private, 'broadcast');
            exception when others then
                raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
            end;
        end
        $$;
    end if;
    if to_regprocedure('realtime.send_binary(bytea, text, text, boolean)') is null then
        create function realtime.send_binary(
            payload bytea, event text, topic text, private boolean default true
        ) returns void language plpgsql as $$
        begin
            begin
                perform set_config('realtime.topic', topic, true);
                insert into realtime.messages (binary_payload, event, topic, private, extension)
                values (payload, event, topic, private, 'broadcast');
            exception when others then
                raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
            end;
        end
        $$;
    end if;
    if to_regproc('realtime.broadcast_changes') is null then
        create function realtime.broadcast_changes(
            topic_name text,
            event_name text,
            operation text,
            table_name text,
            table_schema text,
            new record,
            old record,
            level text default 'ROW'
        ) returns void language plpgsql as $$
        begin
            if level = 'STATEMENT' then
                raise exception
                    'function can only be triggered for each row, not for each statement';
            end if;
            perform realtime.send(
                jsonb_build_object(
                    'old_record', old,
                    'record', new,
                    'operation', operation,
                    'table', table_name,
                    'schema', table_schema
                ),
                event_name,
                topic_name
            );
        exception when others then
            raise exception 'Failed to process the row: %', sqlerrm;
        end
        $$;
    end if;
end
$outer$;
