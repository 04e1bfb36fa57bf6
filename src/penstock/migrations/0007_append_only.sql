-- What was decided and what was booked is never edited, only followed by another row. The database itself sees to that; whoever may take
-- a trigger away leaves traces in the hash chains.
{APPEND_ONLY};
{REFUSE UPDATE entry};
{REFUSE DELETE entry};
{REFUSE TRUNCATE entry};
{REFUSE UPDATE posting};
{REFUSE DELETE posting};
{REFUSE TRUNCATE posting};
{REFUSE UPDATE batch};
{REFUSE DELETE batch};
{REFUSE TRUNCATE batch};
{REFUSE UPDATE order_history};
{REFUSE DELETE order_history};
{REFUSE TRUNCATE order_history};
{REFUSE UPDATE operator_action};
{REFUSE DELETE operator_action};
{REFUSE TRUNCATE operator_action};
{REFUSE UPDATE audit_checkpoint};
{REFUSE DELETE audit_checkpoint};
{REFUSE TRUNCATE audit_checkpoint}
