package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// healthTimeout is below the interval of a usual health check.
const healthTimeout = 4 * time.Second

func newHealth() *cobra.Command {
	return &cobra.Command{
		Use: "health [URL]", Short: "Ask a running node whether it is ready",
		Long: `Asks a running node whether it can take webhooks, for health checks where there is no curl, as in the container image.
Exit code 0: it can. 1: it cannot, or does not answer within 4 s.`,
		Args: optionalArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			url := "http://127.0.0.1:8080/readyz"
			if len(args) == 1 {
				url = args[0]
			}
			if err := checkURL("URL", url); err != nil {
				return err
			}
			request, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, url, nil)
			if err != nil {
				return err
			}
			client := http.Client{Timeout: healthTimeout}
			response, err := client.Do(request)
			if err != nil {
				return fmt.Errorf("no answer: %w", err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
			if err != nil {
				return fmt.Errorf("no answer: %w", err)
			}
			if response.StatusCode != http.StatusOK {
				return fmt.Errorf("not ready: %s: %s", response.Status, strings.TrimSpace(string(body)))
			}
			fmt.Fprintln(cmd.OutOrStdout(), "ready")
			return nil
		},
	}
}
