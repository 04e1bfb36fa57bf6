-- These rows are written again at each step of a payout's life. Where their page has room the new form stays on it: the log holds the difference
-- instead of the whole row, and an update that touches no index writes none. Rows from before keep their pages.
{HALF_FULL orders};
{HALF_FULL attempt};
{HALF_FULL version};
{HALF_FULL outbox}
