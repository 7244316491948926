#!/bin/sh
# Makes what compose.yaml reads from secrets/: passwords and tokens of 48 random digits. Those that
# are there stay. The folder is its owner's alone; the files in it are not, because each container
# reads its own as another user.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
cd secrets

for name in postgres_password owner_password server_password metrics_token grafana_password \
  admin_token; do
  [ -s "$name" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "$name"
  chmod 644 "$name"
done

cat > owner.env <<FILE
LAPSE_STORE_URL=postgresql://lapse_owner:$(cat owner_password)@postgres/lapse
FILE
cat > server.env <<FILE
LAPSE_STORE_URL=postgresql://lapse_server:$(cat server_password)@postgres/lapse
LAPSE_ADMIN_TOKEN=$(cat admin_token)
LAPSE_METRICS_TOKEN=$(cat metrics_token)
FILE
chmod 600 owner.env server.env admin_token
