CREATE FUNCTION core.notify_entity_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('fraiseql_events', NEW.pk_entity_change_log::text);
    RETURN NEW;
END;
$$;
CREATE TRIGGER tr_notify_entity_change
    AFTER INSERT ON core.tb_entity_change_log
    FOR EACH ROW EXECUTE FUNCTION core.notify_entity_change();
