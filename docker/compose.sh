# The commands on the containers. Sourced by run.sh, which sets PROJECT; needs no Python.
# Nothing here runs a line of .env: values are cut out of it as text.
# shellcheck shell=bash

PROJECT_NAME="${COMPOSE_PROJECT_NAME:-sparkpar}"
EMBEDDED_ENV="$PROJECT/docker/embedded.env"
COMPOSE_STATE="$PROJECT/.sparkpar/compose"
PORTS_FILE="$COMPOSE_STATE/ports"
PASSWORD_FILE="$COMPOSE_STATE/postgres_password"
SPARK_SECRET_FILE="$COMPOSE_STATE/spark_auth_secret"
PORT_NAMES="spark-master-ui spark-worker-1-ui spark-worker-2-ui spark-history dagster"
PORT_DEFAULTS="spark-master-ui=8080
spark-worker-1-ui=8081
spark-worker-2-ui=8082
spark-history=18080
dagster=3000"
HEALTHY_WITHIN_SECONDS=300
DEV_FILE="" # of up --dev
IN_PLACE=""

# --- Docker ---------------------------------------------------------------------------------------

check_docker() {
    local said version
    command -v docker >/dev/null ||
        fail "Docker was not found. Install it (docs.docker.com/get-docker), or run the demo, which needs none: ./run.sh demo."
    docker compose version >/dev/null 2>&1 ||
        fail "This Docker has no Compose v2 (docker compose). Install the Compose plugin."
    version="$(docker compose version --short)"
    is_at_least 2.24 "${version#v}" ||
        fail "Docker Compose is $version, and 2.24 is the oldest that will do. Update the Compose plugin."
    if ! said="$(docker version --format '{{.Server.Version}}' 2>&1)"; then
        case "$said" in
            *"permission denied"*)
                fail "Docker does not let this user in. Add the user to the group docker (sudo usermod -aG docker $(id -un)) and log in again."
                ;;
            *) fail "Docker's daemon does not answer. Start it: Docker Desktop, or sudo systemctl start docker." ;;
        esac
    fi
    # Older ones know no start_interval.
    is_at_least 25.0 "$said" || fail "Docker is $said, and 25.0 is the oldest that will do. Update Docker."
}

is_at_least() { [ "$(printf '%s\n' "$@" | sort -t. -k1,1n -k2,2n | head -n 1)" = "$1" ]; }

# compose ENV_FILE ARGUMENTS: that file alone sets Compose's variables, whatever was exported.
# With IN_PLACE in this shell's place, so that a signal to it is Docker's.
compose() {
    local env_file="$1" profiles=(--profile more-workers)
    shift
    if [ "$env_file" = "$EMBEDDED_ENV" ]; then profiles+=(--profile embedded); fi
    ${IN_PLACE:+exec} docker compose --project-name "$PROJECT_NAME" --project-directory "$PROJECT" \
        --file "$PROJECT/docker-compose.yml" ${DEV_FILE:+--file "$DEV_FILE"} \
        --env-file "$env_file" "${profiles[@]}" "$@"
}

# For all that does not start containers anew it does not matter from which file they were started.
any_compose() { compose "$EMBEDDED_ENV" "$@"; }

services() { any_compose config --services | sort; }

check_service() {
    services | grep -qxF -- "$1" ||
        fail "There is no service $1. The services are: $(services | tr '\n' ' ' | sed 's/ $//; s/ /, /g')."
}

# containers FORMAT: a line for each container of the project.
containers() {
    docker ps --all --filter "label=com.docker.compose.project=$PROJECT_NAME" --format "$1" | sort
}

# The volumes without a name: shuffles, and what the master has to know after a crash. They are of
# use to one container alone, and Docker forgets whose they were.
anonymous_volumes() {
    containers '{{.ID}}' | xargs docker inspect --format '{{range .Mounts}}{{println .Name}}{{end}}' 2>/dev/null |
        grep -E '^[0-9a-f]{64}$'
}

# Removes those of the given volumes that no container has any more.
remove_volumes() {
    local volume used
    used="$(anonymous_volumes || true)"
    for volume in "$@"; do
        if ! grep -qx "$volume" <<<"$used"; then docker volume rm "$volume" >/dev/null; fi
    done
}

is_running() {
    containers '{{.Label "com.docker.compose.service"}} {{.State}}' | grep -qx "$1 running"
}

check_up() {
    is_running "$1" || fail "$1 does not run. Start the containers: ./run.sh up, or ./run.sh up --embedded."
}

# --- What has to be there -------------------------------------------------------------------------

# The containers' user is this one: what is private to it on this machine is so in them as well.
# Root is none of them, not even for root, for whom it is the owner of this folder.
choose_user() {
    local uid gid
    uid="$(id -u)"
    gid="$(id -g)"
    if [ "$uid" = 0 ]; then
        uid="${SUDO_UID:-$(owner_of "$PROJECT")}"
        gid="${SUDO_GID:-$uid}"
        if [ "$uid" = 0 ]; then uid=1000 gid=1000; fi
    fi
    export SPARKPAR_UID="${SPARKPAR_UID:-$uid}" SPARKPAR_GID="${SPARKPAR_GID:-$gid}"
}

# GNU's stat and that of macOS have no option in common.
# shellcheck disable=SC2012
owner_of() { ls -ldn "$1" | awk '{print $3}'; }

# A folder of the containers' user that nobody else can enter.
make_private_folder() {
    if [ -d "$1" ]; then return; fi
    mkdir -p "$1"
    chmod 700 "$1"
    if [ "$(id -u)" = 0 ]; then chown "$SPARKPAR_UID:$SPARKPAR_GID" "$1"; fi
}

# Settings, and sizes of containers, come from .env or docker/embedded.env alone: Compose would
# prefer what was exported.
forget_exported_settings() {
    local name
    while read -r name; do
        unset "$name"
    done < <(
        sed -n 's/^\(# \)\{0,1\}\([A-Z][A-Z0-9_]*\)=.*/\2/p' "$PROJECT/.env.example"
        grep -Eo '\$\{(SPARK_|SPARKPAR_MEMORY_|SPARKPAR_COMPOSE_)[A-Z_]+' "$PROJECT/docker-compose.yml" |
            cut -c3-
        grep -Eo '^ +[A-Z_]+_CA_BUNDLE' "$PROJECT/docker-compose.yml"
    )
}

# The last value that .env gives a name, without quotes.
value_in_env() {
    sed -n "s/^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}$1[[:space:]]*=[[:space:]]*//p" \
        "$PROJECT/.env" | tail -n 1 |
        sed -e "s/^'\([^']*\)'.*/\1/;t" -e 's/^"\([^"]*\)".*/\1/;t' -e 's/[[:space:]]#.*//;s/[[:space:]]*$//'
}

stands_in_env() { grep -Eq "^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=" "$PROJECT/.env"; }

check_env() {
    local missing="" name
    [ -f "$PROJECT/.env" ] ||
        fail "There is no .env, which names your bucket and credentials. Copy .env.example to .env and fill it in, or start with sample trips instead: ./run.sh up --embedded."
    if [ -z "$(value_in_env S3_BUCKET)" ]; then missing=", S3_BUCKET"; fi
    # Without both lines the containers ask for the machine's role; with one, it was forgotten.
    if stands_in_env AWS_ACCESS_KEY_ID || stands_in_env AWS_SECRET_ACCESS_KEY; then
        for name in AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; do
            if [ -z "$(value_in_env "$name")" ]; then missing="$missing, $name"; fi
        done
    fi
    [ -z "$missing" ] ||
        fail "No value in .env for: ${missing#, }. Fill in what .env.example explains, or start with sample trips instead: ./run.sh up --embedded."
    check_key_file "$(value_in_env GOOGLE_APPLICATION_CREDENTIALS)"
}

check_key_file() {
    local named="$1" file
    if [ -z "$named" ]; then return; fi
    case "$named" in
        /secrets/*) file="$PROJECT/.secrets/${named#/secrets/}" ;;
        *) fail "GOOGLE_APPLICATION_CREDENTIALS in .env is $named, which no container sees. Put the key into the folder .secrets and write /secrets/NAME." ;;
    esac
    if [ -d "$file" ]; then
        fail "$file is a folder: Docker makes one where a file that it shall mount is missing. Remove it (rmdir), and put the key file of the service account there."
    fi
    [ -f "$file" ] ||
        fail "$file is missing, the key file of the service account that .env names. Put it there, or remove the line GOOGLE_APPLICATION_CREDENTIALS for the machine's own credentials."
    is_private "$file" ||
        fail "$file holds a secret, and other users of this machine can read it. Run chmod 600 $file, and make a new key if they may have."
    is_readable_inside "$file" ||
        fail "$file cannot be read by user $SPARKPAR_UID, as which the containers run. Give it to that user: sudo chown -R $SPARKPAR_UID $PROJECT/.secrets"
}

# shellcheck disable=SC2012
is_private() { ls -ldn "$1" | awk '{ exit substr($1, 5, 6) != "------" }'; }

# Whether the containers' user may read a file of .secrets, as its owner or as anyone.
is_readable_inside() {
    if [ "$(id -u)" = "$SPARKPAR_UID" ]; then
        [ -r "$1" ]
    else
        may "$1" 2 r && may "$PROJECT/.secrets" 4 x
    fi
}

# may FILE POSITION LETTER: the letter stands for its owner in the mode, or 6 further for all.
# shellcheck disable=SC2012
may() {
    ls -ldn "$1" | awk -v uid="$SPARKPAR_UID" -v at="$2" -v letter="$3" \
        '{ exit !(($3 == uid && substr($1, at, 1) == letter) || substr($1, at + 6, 1) == letter) }'
}

# PostgreSQL's password: in no variable that `docker inspect` shows. Its file can be read by the
# containers, whose users differ; on this machine the folder keeps others out.
make_password() {
    make_private_folder "$COMPOSE_STATE"
    chmod 700 "$COMPOSE_STATE"
    if [ -s "$PASSWORD_FILE" ]; then return; fi
    random_hex 24 >"$PASSWORD_FILE"
    chmod 644 "$PASSWORD_FILE"
    if docker volume inspect "${PROJECT_NAME}_postgres" >/dev/null 2>&1; then renew_password "$@"; fi
}

# The secret that Spark's processes ask each other for. Its file is the containers' user's alone.
make_spark_secret() {
    if [ -s "$SPARK_SECRET_FILE" ]; then return; fi
    (umask 077 && random_hex 32 >"$SPARK_SECRET_FILE")
    if [ "$(id -u)" = 0 ]; then chown "$SPARKPAR_UID:$SPARKPAR_GID" "$SPARK_SECRET_FILE"; fi
}

random_hex() { od -An -tx1 -N"$1" /dev/urandom | tr -d ' \n'; }

# A database that was made with a password that is lost gets the new one.
renew_password() {
    step "Giving the database its new password"
    compose "$1" up --detach --wait postgres >/dev/null 2>&1 || true
    compose "$1" exec -T postgres psql --quiet --username dagster \
        --command "ALTER ROLE dagster PASSWORD '$(cat "$PASSWORD_FILE")'" ||
        fail "The database's password is lost with $PASSWORD_FILE. Put that file back, or begin anew: ./run.sh cleanup."
}

# --- Ports ----------------------------------------------------------------------------------------

# SPARKPAR_PORTS as for the embedded stack: free, default, or NAME=PORT,…; kept until the next one.
choose_ports() {
    local wish="${SPARKPAR_PORTS:-}" name pair
    CHOSEN_PORTS="$PORT_DEFAULTS"
    if [ "$wish" != default ] && [ -f "$PORTS_FILE" ]; then
        CHOSEN_PORTS="$CHOSEN_PORTS"$'\n'"$(cat "$PORTS_FILE")"
    fi
    case "$wish" in
        default) ;;
        free) CHOSEN_PORTS="$(free_ports)" ;;
        *)
            while read -r pair; do
                check_port_choice "$pair"
                CHOSEN_PORTS="$CHOSEN_PORTS"$'\n'"$pair"
            done < <(tr ' ,' '\n' <<<"$wish" | grep .)
            ;;
    esac
    for name in $PORT_NAMES; do
        export "SPARKPAR_PORT_$(tr 'a-z-' 'A-Z_' <<<"$name")=$(chosen_port "$name")"
    done
}

check_port_choice() {
    local name="${1%%=*}" port="${1#*=}"
    if [[ " $PORT_NAMES " != *" $name "* ]] || ! [[ "$port" =~ ^[1-9][0-9]{0,4}$ ]] ||
        [ "$port" -gt 65535 ]; then
        fail "SPARKPAR_PORTS has '$1', which is not NAME=PORT. Write free, default, or a list of these names: ${PORT_NAMES// /, }."
    fi
}

chosen_port() { sed -n "s/^$1=//p" <<<"$CHOSEN_PORTS" | tail -n 1; }

# The ports of last time, and in the place of each that others use now, or of none, a free one.
free_ports() {
    local name port
    for name in $PORT_NAMES; do
        port="$(sed -n "s/^$name=//p" "$PORTS_FILE" 2>/dev/null)"
        until [ -n "$port" ] && ! is_taken_by_others "$port"; do
            port=$((20000 + RANDOM % 12000))
        done
        echo "$name=$port"
    done
}

is_taken_by_others() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null &&
        [[ "$(containers '{{.Ports}}')" != *"127.0.0.1:$1->"* ]]
}

check_ports() {
    local name port taken=""
    for name in $PORT_NAMES; do
        port="$(chosen_port "$name")"
        if is_taken_by_others "$port"; then taken="$taken Port $port ($name) is taken."; fi
    done
    [ -z "$taken" ] ||
        fail "${taken# } Stop what uses it (./run.sh embedded down, if that is the embedded stack), or choose other ports: SPARKPAR_PORTS=free takes free ones, SPARKPAR_PORTS=NAME=PORT,… sets single ones (${PORT_NAMES// /, })."
    for name in $PORT_NAMES; do echo "$name=$(chosen_port "$name")"; done >"$PORTS_FILE"
}

# --- The commands ---------------------------------------------------------------------------------

cluster_build() {
    check_docker
    choose_user
    mkdir -p "$COMPOSE_STATE"
    build_image
    docker image inspect "$PROJECT_NAME" --format '{{.Size}}' |
        awk -v name="$PROJECT_NAME" '{ printf "==> The image %s: %.2f GB\n", name, $1 / 1e9 }'
}

# Shows each step of the build that took a second; the whole of it is in the log.
build_image() {
    local log="$COMPOSE_STATE/build.log"
    step "Building the image (minutes and 1.2 GB to fetch the first time)"
    if ! BUILDKIT_PROGRESS=plain any_compose build 2>&1 | tee "$log" | awk '
        /^#[0-9]+ \[/ { id = $1; sub(/^#[0-9]+ /, ""); step[id] = substr($0, 1, 90) }
        /^#[0-9]+ DONE [0-9.]+s/ && $3 + 0 >= 1 && step[$1] { printf "    %6s  %s\n", $3, step[$1] }
    ' >&2; then
        grep -E '^(#[0-9]+ [0-9.]+ .*[Ee]rror|ERROR|failed|.*[Ee]rror:)' "$log" | tail -n 5 >&2
        fail "The image could not be built; the whole log is $log. Check the network and run ./run.sh build again: what was fetched is kept."
    fi
}

cluster_up() {
    local embedded="" workers=2 run="" years="" env_file="$PROJECT/.env"
    while [ $# -gt 0 ]; do
        case "$1" in
            --embedded) embedded=yes env_file="$EMBEDDED_ENV" ;;
            --workers)
                [[ "${2:-}" =~ ^[1-9][0-9]?$ ]] || fail "--workers needs a number from 1 to 99."
                workers="$2"
                shift
                ;;
            --run)
                run=yes
                if [[ "${2:-}" =~ ^[^-] ]]; then years="$2"; shift; fi
                ;;
            --no-run) run=no ;;
            --dev) DEV_FILE="$PROJECT/docker-compose.dev.yml" ;;
            *) fail "up has no option $1. ./run.sh help shows those it has." ;;
        esac
        shift
    done
    check_docker
    choose_user
    forget_exported_settings
    make_private_folder "$PROJECT/.secrets"
    if [ -z "$embedded" ]; then check_env; fi
    make_private_folder "$COMPOSE_STATE"
    choose_ports
    check_ports
    make_password "$env_file"
    make_spark_secret
    build_image
    start_containers "$env_file" "$workers"
    show_addresses "$embedded"
    case "$embedded/$run" in
        yes/no | /no | /) ;;
        yes/*)
            materialize fare_by_passenger_count "${years:-2017...2019}"
            if [ -z "$years" ]; then
                materialize fare_by_passenger_count 2021
                materialize fare_trends
            fi
            ;;
        /yes) materialize fare_by_passenger_count "${years:-2022}" ;;
    esac
}

start_containers() {
    local env_file="$1" first=$(($2 > 1)) more=$(($2 > 2 ? $2 - 2 : 0)) log="$COMPOSE_STATE/up.log" old
    step "Starting the containers"
    old="$(anonymous_volumes || true)"
    # A master that is made anew would wait a minute for the workers that the old one knew.
    compose "$env_file" --progress plain up --detach --renew-anon-volumes \
        --scale "spark-worker-2=$first" --scale "spark-worker-more=$more" >"$log" 2>&1 &
    # A Ctrl-C is not for what runs in the background.
    # shellcheck disable=SC2064  # this one's
    trap "kill $! 2>/dev/null" EXIT
    wait_until_healthy $! "$log"
    trap - EXIT
    # shellcheck disable=SC2086  # one argument a volume
    remove_volumes $old
}

# wait_until_healthy [PID LOG]: until each container is healthy, and the command that starts them,
# if there is one, has ended.
wait_until_healthy() {
    local starter="${1:-}" log="${2:-}" seen="" start=$SECONDS line name state word waiting
    while :; do
        waiting=""
        while read -r line; do
            name="${line%% *}" state="${line#* }"
            case "$state" in
                *"(healthy)"* | "Exited (0)"*)
                    if [[ "$seen" != *" $name "* ]]; then
                        word=healthy
                        if [[ "$state" == Exited* ]]; then word="done"; fi
                        printf '    %-22s %s after %d s\n' "$name" "$word" $((SECONDS - start))
                        seen="$seen $name "
                    fi
                    ;;
                *) waiting="$waiting $name" ;;
            esac
        done < <(containers '{{.Names}} {{.Status}}' | sed "s/^$PROJECT_NAME-//; s/-1 / /")
        if [ -n "$starter" ] && ! kill -0 "$starter" 2>/dev/null; then
            if ! wait "$starter"; then explain_failure "$log"; fi
            starter=""
        elif [ -z "$starter" ] && [ -z "$waiting" ]; then
            return
        fi
        if [ $((SECONDS - start)) -gt $HEALTHY_WITHIN_SECONDS ]; then
            explain_failure "$log" "Not healthy within $HEALTHY_WITHIN_SECONDS seconds:$waiting."
        fi
        sleep 0.5
    done
}

# explain_failure LOG [CAUSE]: the containers that are not well, with the ends of their logs.
explain_failure() {
    local name state said="${2:-}"
    while read -r name state; do
        case "$state" in
            *unhealthy* | Restarting* | "Exited ("[1-9]*)
                printf '\n%s: %s. The end of its log:\n' "$name" "$state" >&2
                docker logs --tail 15 "$name" >&2
                ;;
        esac
    done < <(containers '{{.Names}} {{.Status}}')
    if [ -z "$said" ]; then said="Docker says: $(tail -n 1 "$1")."; fi
    fail "The containers did not all start. $said ./run.sh status and ./run.sh logs SERVICE say more; ./run.sh up goes on from here."
}

show_addresses() {
    cat <<ADDRESSES

Dagster's UI    http://127.0.0.1:$(chosen_port dagster)
Spark master    http://127.0.0.1:$(chosen_port spark-master-ui)
past runs       http://127.0.0.1:$(chosen_port spark-history)
materialize     ./run.sh materialize fare_by_passenger_count $([ -n "$1" ] && echo 2017...2019 || echo 2022)

ADDRESSES
}

cluster_down() {
    local old
    check_docker
    if [ -z "$(containers '{{.Names}}')" ]; then
        step "Nothing is up"
        return
    fi
    step "Stopping the containers; their data stays"
    old="$(anonymous_volumes || true)"
    any_compose down >/dev/null 2>&1 || fail "Docker did not stop the containers. ./run.sh status shows what is left."
    # shellcheck disable=SC2086  # one argument a volume
    remove_volumes $old
}

cluster_restart() {
    check_docker
    if [ $# -gt 0 ]; then
        check_service "$1"
        check_up "$1"
        any_compose restart "$1" >/dev/null 2>&1
    else
        local running
        running="$(any_compose ps --services --status running)"
        [ -n "$running" ] || fail "Nothing is up. Start the containers: ./run.sh up, or ./run.sh up --embedded."
        # shellcheck disable=SC2086  # one argument a service
        any_compose restart $running >/dev/null 2>&1
    fi
    step "Restarted ${1:-all}"
    wait_until_healthy
}

cluster_logs() {
    check_docker
    if [ $# -gt 0 ]; then check_service "$1"; fi
    IN_PLACE=yes
    any_compose logs --follow --tail 200 "$@"
}

cluster_status() {
    local names
    check_docker
    names="$(containers '{{.Names}}')"
    if [ -z "$names" ]; then
        step "Nothing is up. Start the containers: ./run.sh up, or ./run.sh up --embedded."
        return
    fi
    # shellcheck disable=SC2086  # one argument a container
    {
        containers '{{.Names}}|{{.Status}}|{{.Ports}}'
        docker stats --no-stream --format '{{.Name}}|{{.MemUsage}}' $names
    } | awk -F'|' -v prefix="$PROJECT_NAME-" '
        NF == 3 { names[++n] = $1; status[$1] = $2; ports[$1] = $3 }
        NF == 2 { memory[$1] = $2 }
        END {
            printf "%-18s %-34s %-22s %s\n", "SERVICE", "STATE", "MEMORY", "ADDRESS"
            for (i = 1; i <= n; i++) {
                name = names[i]; shown = name; address = ports[name]
                sub(prefix, "", shown); sub(/-1$/, "", shown)
                if (match(address, /127[.]0[.]0[.]1:[0-9]+/)) address = "http://" substr(address, RSTART, RLENGTH)
                else address = ""
                printf "%-18s %-34s %-22s %s\n", shown, status[name], memory[name] ~ /^0B/ ? "" : memory[name], address
            }
        }'
    if is_running spark-master; then
        echo
        any_compose exec -T spark-master python - <"$PROJECT/docker/cluster_state.py"
    fi
}

cluster_materialize() {
    if [ $# -lt 1 ] || [ $# -gt 2 ]; then
        fail "materialize needs an asset, and a partition or a range of them: ./run.sh materialize fare_by_passenger_count 2017...2019."
    fi
    check_docker
    check_up spark-app
    IN_PLACE=yes
    materialize "$@"
}

materialize() {
    step "Materializing $*"
    run_in_app sparkpar_assets.materialize "$@"
}

# run_in_app MODULE ARGUMENTS: one of the project's modules, on the settings of spark-app.
run_in_app() {
    local terminal=()
    if ! [ -t 0 ] || ! [ -t 1 ]; then terminal=(-T); fi
    any_compose exec ${terminal[@]+"${terminal[@]}"} spark-app entrypoint python -m "$@"
}

cluster_cleanup() {
    local volumes answer="" yes="${1:-}"
    [ -z "$yes" ] || [ "$yes" = --yes ] || fail "cleanup has no option $yes, only --yes."
    check_docker
    cluster_down
    if docker image inspect "$PROJECT_NAME" >/dev/null 2>&1; then
        docker image rm "$PROJECT_NAME" >/dev/null
        step "Removed the image $PROJECT_NAME"
    fi
    volumes="$(docker volume ls --quiet --filter "label=com.docker.compose.project=$PROJECT_NAME")"
    if [ -z "$volumes" ]; then return; fi
    if [ -z "$yes" ] && [ -t 0 ]; then
        printf 'Remove the volumes too? With them go the history of all runs, and what is in the embedded BigQuery and S3. [y/N] '
        read -r answer
    fi
    case "$yes$answer" in
        --yes | y | Y | yes)
            # shellcheck disable=SC2086  # one argument a volume
            docker volume rm $volumes >/dev/null
            rm -rf "$COMPOSE_STATE"
            step "Removed the volumes"
            ;;
        *) step "The volumes stay. ./run.sh cleanup --yes removes them without a question." ;;
    esac
}
