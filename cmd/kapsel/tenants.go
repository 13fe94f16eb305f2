package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/protocli"
)

const tenantStatePrefix = "TENANT_STATE_"

func newTenants() *cobra.Command {
	cmd := &cobra.Command{Use: "tenants", Short: "Make, list, suspend and delete tenants, with a key of the operator", Args: noArgs,
		Long: `Manages tenants with a key of the operator (--api-key or KAPSEL_API_KEY). The first one is made by
kapsel keys create --operator, with access to the database.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError(errors.New("say what to do: kapsel tenants create, list, suspend, activate or delete"))
		},
	}
	cmd.AddCommand(newTenantsCreate(), newTenantsList(), newTenantsDelete(),
		newTenantsState("suspend", "Suspend a tenant: it may read, but nothing is taken in or delivered", kapselv1.TenantState_TENANT_STATE_SUSPENDED),
		newTenantsState("activate", "Activate a suspended tenant: what waited for it is delivered", kapselv1.TenantState_TENANT_STATE_ACTIVE))
	return cmd
}

func newTenantsCreate() *cobra.Command {
	var server clientFlags
	var output outputFlag
	var name string
	cmd := &cobra.Command{
		Use: "create", Short: "Make a tenant and print its id", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			printer, err := output.printer(cmd)
			if err != nil {
				return err
			}
			d, err := server.demo()
			if err != nil {
				return err
			}
			response, err := newClient(d.URL, d.APIKey).tenants.CreateTenant(cmd.Context(), &kapselv1.CreateTenantRequest{Tenant: &kapselv1.Tenant{DisplayName: name}})
			if err != nil {
				return fmt.Errorf("create tenant: %w", err)
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "next: kapsel keys create --tenant "+response.Tenant.Id)
			return output.print(printer, response, response.Tenant.Id+"\n")
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the tenant, for people")
	output.add(cmd)
	server.add(cmd.Flags())
	return cmd
}

func newTenantsList() *cobra.Command {
	var server clientFlags
	var output outputFlag
	cmd := &cobra.Command{
		Use: "list", Short: "List tenants, the newest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			printer, err := output.printer(cmd)
			if err != nil {
				return err
			}
			d, err := server.demo()
			if err != nil {
				return err
			}
			c := newClient(d.URL, d.APIKey)
			if printer.Format != protocli.Table {
				return listRPC(cmd, c, "TenantService/ListTenants", new(kapselv1.ListTenantsRequest), 0, printer)
			}
			out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(out, "ID\tSTATE\tCREATED\tNAME")
			request := &kapselv1.ListTenantsRequest{PageSize: 1000}
			for {
				page, err := c.tenants.ListTenants(cmd.Context(), request)
				if err != nil {
					return fmt.Errorf("list tenants: %w", err)
				}
				for _, t := range page.Tenants {
					fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", t.Id, tenantState(t), t.CreateTime.AsTime().Format(time.DateTime), t.DisplayName)
				}
				if request.PageToken = page.NextPageToken; request.PageToken == "" {
					return out.Flush()
				}
			}
		},
	}
	output.add(cmd)
	server.add(cmd.Flags())
	return cmd
}

func tenantState(t *kapselv1.Tenant) string {
	if t.EraseTime != nil {
		return "deleted"
	}
	return strings.ToLower(strings.TrimPrefix(t.State.String(), tenantStatePrefix))
}

func newTenantsState(verb, short string, state kapselv1.TenantState) *cobra.Command {
	var server clientFlags
	var output outputFlag
	cmd := &cobra.Command{
		Use: verb + " TENANT_ID", Short: short, Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			printer, err := output.printer(cmd)
			if err != nil {
				return err
			}
			d, err := server.demo()
			if err != nil {
				return err
			}
			response, err := newClient(d.URL, d.APIKey).tenants.UpdateTenant(cmd.Context(), &kapselv1.UpdateTenantRequest{
				TenantId: args[0], Tenant: &kapselv1.Tenant{State: state}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"state"}},
			})
			if err != nil {
				return fmt.Errorf("%s tenant: %w", verb, err)
			}
			return output.print(printer, response, fmt.Sprintf("%s is %s\n", response.Tenant.Id, tenantState(response.Tenant)))
		},
	}
	output.add(cmd)
	server.add(cmd.Flags())
	return cmd
}

func newTenantsDelete() *cobra.Command {
	var server clientFlags
	var output outputFlag
	var sure bool
	cmd := &cobra.Command{
		Use: "delete TENANT_ID", Short: "Delete a tenant with all its payloads, leaf bytes, secrets and keys", Args: oneArg,
		Long: `Ends a tenant's keys, intake and deliveries at once, and erases the rest in the background: endpoints, destinations,
payloads, leaf bytes, secrets. Hashes and the audit log stay. It cannot be undone, so --yes must be given.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !sure {
				return usageError(errors.New("this cannot be undone: say --yes to delete the tenant and all that it has"))
			}
			printer, err := output.printer(cmd)
			if err != nil {
				return err
			}
			d, err := server.demo()
			if err != nil {
				return err
			}
			response, err := newClient(d.URL, d.APIKey).tenants.DeleteTenant(cmd.Context(), &kapselv1.DeleteTenantRequest{TenantId: args[0]})
			if err != nil {
				return fmt.Errorf("delete tenant: %w", err)
			}
			text := fmt.Sprintf("%s is %s; kapsel tenants list shows when it is deleted\n", response.Tenant.Id, tenantState(response.Tenant))
			return output.print(printer, response, text)
		},
	}
	output.add(cmd)
	cmd.Flags().BoolVar(&sure, "yes", false, "really delete it")
	cmd.Flags().Lookup("yes").Annotations = map[string][]string{notFromEnvironment: nil} // said each time
	server.add(cmd.Flags())
	return cmd
}
