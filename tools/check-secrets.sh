#!/usr/bin/env bash
# Looks for credentials in what git has: the forms that providers give them, and private keys. Known-answer tests use
# published examples and made-up values, which are listed below one by one.
set -euo pipefail
cd "$(dirname "$0")/.."

forms=(
	'^-----BEGIN ([A-Z]+ )?PRIVATE KEY-----$'      # alone on its line, as in a file
	'(AKIA|ASIA)[0-9A-Z]{16}'                   # AWS
	'gh[pousr]_[A-Za-z0-9]{36}'                 # GitHub
	'github_pat_[A-Za-z0-9_]{40,}'
	'glpat-[A-Za-z0-9_-]{20}'                   # GitLab
	'xox[abprs]-[0-9]{8,}-[0-9A-Za-z-]{16,}'    # Slack
	'sk_live_[0-9A-Za-z]{20,}'                  # Stripe
	'AIza[0-9A-Za-z_-]{35}'                     # Google
	'SK[0-9a-f]{32}'                            # Twilio
	'npm_[A-Za-z0-9]{36}'
	'eyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}' # a signed JWT
	'"keyMaterialType":"SYMMETRIC"'             # a Tink keyset in the clear
)
allowed='tools/check-secrets.sh'

found=0
for form in "${forms[@]}"; do
	if hits=$(git grep -InE -e "$form" -- . ':!third_party' ":!$allowed" ':!*.sum' | cut -c1-160); then
		echo "looks like a credential: $hits" >&2
		found=1
	fi
done
[ "$found" -eq 0 ] || { echo "take it out, and revoke it if it was ever valid; an example of a provider's documentation goes into tools/check-secrets.sh" >&2; exit 1; }
